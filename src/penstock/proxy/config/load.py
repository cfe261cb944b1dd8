"""Reads penstock.toml, checks it whole, and says everything that is wrong with it at once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.rule import shown
from penstock.core.settings import Settings
from penstock.errors import ConfigError
from penstock.proxy.config.checks import (
    admin_token,
    cross_check,
    forward_proxies,
    keys_of_callers,
    keys_of_upstreams,
)
from penstock.proxy.config.forward_proxy import ForwardProxy
from penstock.proxy.config.keyring import Keyring
from penstock.proxy.config.models import Config
from penstock.proxy.config.to_core import core_settings
from penstock.schema.problem import refusal
from penstock.schema.reading import parse_toml, read, read_toml
from penstock.wire.secret import Secret


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used.

    Attributes:
        config: the file's content, defaults filled in.
        settings: what the scheduler needs.
        upstream_keys: the keys of upstreams that have one, by upstream name.
        caller_keys: the keys that callers may present, by key name.
        admin_token: what the admin pages ask for; None for nothing.
        forward_proxies: the proxies of upstreams that are reached through one, by upstream name.

    """

    config: Config
    settings: Settings
    upstream_keys: Mapping[str, Secret]
    caller_keys: Mapping[str, Secret]
    forward_proxies: Mapping[str, ForwardProxy]
    admin_token: Secret | None = None


def load(path: str | Path, *, env: Mapping[str, str] | None = None) -> Loaded:
    """Read and check a file.

    Whoever may write it names the upstreams, and programs that are run for their keys: as sshd,
    ssh and sudo do with theirs, one that everybody may write is refused.

    Raises:
        ConfigError: it cannot be read or used; the text names every problem.

    """
    return _checked(read_toml(path, private=True), env=env, where=str(path))


def loads(text: str, *, env: Mapping[str, str] | None = None) -> Loaded:
    """Check a file's text.

    Raises:
        ConfigError: it cannot be used; the text names every problem.

    """
    where = "penstock.toml"
    return _checked(parse_toml(text, where=where), env=env, where=where)


def _checked(data: Mapping[str, Any], *, env: Mapping[str, str] | None, where: str) -> Loaded:
    try:
        return _loaded(data, env=env, where=where)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:  # a rule of the core's, or a path that no system takes
        raise refusal(where, [shown(str(error))]) from error


def _loaded(data: Mapping[str, Any], *, env: Mapping[str, str] | None, where: str) -> Loaded:
    reading = read(Config, data)
    keyring = Keyring(os.environ if env is None else env)
    problems = [*reading.problems, *cross_check(reading, keyring)]
    config = reading.table
    if config is None or problems:
        raise refusal(where, problems)
    return Loaded(
        config,
        core_settings(config),
        upstream_keys=keys_of_upstreams(config, keyring),
        caller_keys=keys_of_callers(config, keyring),
        forward_proxies=forward_proxies(config, keyring.env),
        admin_token=admin_token(config, keyring),
    )
