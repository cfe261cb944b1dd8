"""Makes a shadow's policy the configuration: the file's text with the policy laid over it."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from penstock.errors import ConfigError
from penstock.proxy.config.models import Config
from penstock.schema.problem import refusal
from penstock.schema.reading import parse_toml, read
from penstock.twin.policy import Policy, plain_of

_ASKED_ONLY = ("like", "speed", "input_usd_per_mtok", "output_usd_per_mtok")
"""Keys of a policy's upstreams that speak of a provider which no configuration makes."""


def promoted(text: str, name: str, *, where: str = "penstock.toml") -> str:
    """Return the file's text in which the policy of that name holds; comments stay.

    Raises:
        ConfigError: the file cannot be read, has no such policy, or the policy asks about a
            provider that no configuration can bring about.

    """
    reading = read(Config, parse_toml(text, where=where))
    if reading.table is None or reading.problems:
        raise refusal(where, reading.problems)
    config = reading.table
    policy = config.shadow.policies.get(name)
    if policy is None:
        known = ", ".join(config.shadow.policies) or "none"
        raise ConfigError(f"{where}: shadow.policies has no {name!r}: it has {known}")
    _refuse_wishes(policy, name)
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"{where}: cannot be changed: {error}") from None
    table = policy.table()
    for key, value in table.get("scheduler", {}).items():
        document.setdefault("scheduler", tomlkit.table())[key] = _inline(value)
    if "classes" in table:
        if "classes" not in document:
            document["classes"] = _default_classes(config)
        _lay_over(document["classes"], table["classes"])
    _lay_over(document["upstreams"], table.get("upstreams", []))
    return tomlkit.dumps(document)


def replace_file(path: Path, content: bytes) -> None:
    """Write the file whole or not at all; it keeps its mode, and a link what it points to.

    Raises:
        OSError: it cannot be written; nothing has changed then.

    """
    path = path.resolve()
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, new)
        Path(new).replace(path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


def _refuse_wishes(policy: Policy, name: str) -> None:
    for change in policy.upstreams:
        wished = [key for key in _ASKED_ONLY if key in change.model_fields_set]
        if wished:
            raise ConfigError(
                f"shadow.policies.{name}.upstreams[{change.name}].{wished[0]}: asks about a "
                "provider that no configuration makes: it cannot be promoted"
            )


def _lay_over(held: Any, changes: list[dict[str, Any]]) -> None:
    """Set the keys of the tables of the same name."""
    by_name = {str(each.get("name", "default")): each for each in held}
    for change in changes:
        for key, value in change.items():
            if key == "name":
                continue
            if isinstance(value, dict) and "kind" not in value:
                by_name[change["name"]].setdefault(key, tomlkit.inline_table()).update(value)
            else:
                by_name[change["name"]][key] = _inline(value)


def _inline(value: Any) -> Any:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    return value


def _default_classes(config: Config) -> Any:
    found = tomlkit.aot()
    for each in config.classes:
        table = tomlkit.table()
        table.update(plain_of(each))
        found.append(table)
    return found
