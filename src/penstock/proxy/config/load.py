"""Reads penstock.toml, checks it whole, and says everything that is wrong with it at once."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.core.settings import Settings
from penstock.errors import ConfigError
from penstock.proxy.config.checks import cross_check, resolve_keys, resolve_proxies
from penstock.proxy.config.models import Config
from penstock.proxy.config.policies import policy_problems
from penstock.proxy.config.problem import Problem
from penstock.proxy.config.schema import read_table
from penstock.proxy.config.secret import Secret
from penstock.proxy.config.to_core import classes_of, core_settings
from penstock.proxy.upstream.forward_proxy import ForwardProxy


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used.

    Attributes:
        config: the file's content, defaults filled in.
        settings: what the scheduler needs.
        upstream_keys: the keys of upstreams that have one, by upstream name.
        caller_keys: the keys that callers may present, by key name.
        forward_proxies: the proxies of upstreams that are reached through one, by upstream name.

    """

    config: Config
    settings: Settings
    upstream_keys: Mapping[str, Secret]
    caller_keys: Mapping[str, Secret]
    forward_proxies: Mapping[str, ForwardProxy]


def load(path: str | Path, *, env: Mapping[str, str] | None = None) -> Loaded:
    """Read and check a file.

    Raises:
        ConfigError: it cannot be read or used; the text names every problem.

    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}): is --config the right path?"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: must be UTF-8 text: is it a TOML file?") from None
    return loads(text, env=env, where=str(path))


def loads(
    text: str, *, env: Mapping[str, str] | None = None, where: str = "penstock.toml"
) -> Loaded:
    """Check a file's text.

    Raises:
        ConfigError: it cannot be used; the text names every problem.

    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: is not TOML: {error}") from None
    problems: list[Problem] = []
    config: Config | None = read_table(Config, data, "", problems)
    if config is None:
        raise refusal(where, problems)
    problems += cross_check(config)
    env = os.environ if env is None else env
    keys = resolve_keys(config, env, problems)
    proxies = resolve_proxies(config, env, problems)
    problems += policy_problems(config, classes_of(config))
    if problems:
        raise refusal(where, problems)
    return Loaded(config, core_settings(config), *keys, proxies)


def refusal(where: str, problems: list[Problem]) -> ConfigError:
    """Return the error that names everything wrong with a file."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"{where}: {count}; nothing was started.{lines}")
