"""Reads TOML files and their tables, and returns everything that is wrong with them at once."""

import copy
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from penstock.errors import ConfigError
from penstock.private_file import NotPrivate, open_private
from penstock.schema.json_schema import Node, node_at, schema_of, words
from penstock.schema.problem import Mistakes, Problem, close_to, shown
from penstock.schema.types import COMPLAINTS, Table


def read_toml(path: str | Path, *, private: bool = False) -> dict[str, Any]:
    """Return a file's tables.

    Args:
        path: where the file is.
        private: whether nobody but its owner may be able to write it.

    Raises:
        ConfigError: it cannot be read, or is no TOML; the text says where and why.

    """
    opener = open_private if private else None
    try:
        # Windows' editors write a BOM
        with open(path, encoding="utf-8-sig", opener=opener) as file:
            text = file.read()
    except NotPrivate as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}): is it the right path?"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: must be UTF-8 text: is it a TOML file?") from None
    return parse_toml(text, where=str(path))


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """Return a text's tables.

    Raises:
        ConfigError: it is no TOML.

    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not all are TOML's own: a number too long
        raise ConfigError(f"{where}: is not TOML: {error}") from None


K = TypeVar("K", bound=Table)
Place = tuple[str | int, ...]
_ROUNDS = 3
"""A table contradicts itself only once its keys are right, and a table around it after that."""
_HINTS = {
    "boolean": "true and false stand without quotes in TOML",
    "integer": "whole numbers stand without quotes and without a point in TOML",
    "number": "numbers stand without quotes in TOML",
    "string": "text stands in quotes in TOML",
}
_NOT_LEFT_OUT = "0 and inf are not how 'none' or 'unlimited' is said: leave the key out"


@dataclass(frozen=True, slots=True)
class TableReading(Generic[K]):
    """What came of a table.

    Attributes:
        table: the table; where something is wrong, what it would be without its wrong keys, so
            that checks between keys can say what else is wrong; None if nothing can be made of it.
        problems: what is wrong, in the order of the file.

    """

    table: K | None
    problems: list[Problem]

    def tells(self, *keys: str) -> bool:
        """Return False if one of these keys (`upstreams.name`) is wrong, somewhere in the file."""
        wrong = [re.sub(r"\[\d+\]", "", problem.key) + "." for problem in self.problems]
        return self.table is not None and not any(
            f"{key}.".startswith(bad) or bad.startswith(f"{key}.") for key in keys for bad in wrong
        )


def read(
    kind: type[K], data: Mapping[str, Any], *, also: tuple[str, ...] = (), context: Any = None
) -> TableReading[K]:
    """Return `data` as the table, and everything that is wrong with it.

    Args:
        kind: the table.
        data: as read from TOML.
        also: keys of the file's table that are read elsewhere, to be named among the known ones.
        context: what the table's own validators ask for.

    """
    try:
        return TableReading(kind.model_validate(data, context=context), [])
    except ValidationError as error:
        root = schema_of(kind)
        problems = [each for detail in _details(error) for each in _problems(root, detail, also)]
        return TableReading(_mended(kind, data, error, context), problems)


def read_params(kind: type[K], table: object, *, where: str, also: tuple[str, ...] = ()) -> K:
    """Return the table; keys in `also` are read elsewhere.

    Raises:
        Mistakes: a key is unknown or missing, or a value breaks its rule; all of them, by their
            keys in the file, where the table is called `where`.

    """
    if not isinstance(table, Mapping):
        raise Mistakes([Problem(where, shown(where, table), "must be a table")])
    given = {key: value for key, value in table.items() if key not in also}
    reading = read(kind, given, also=also)
    if reading.problems or reading.table is None:
        raise Mistakes([problem.below(where) for problem in reading.problems])
    return reading.table


def _mended(
    kind: type[K], data: Mapping[str, Any], error: ValidationError, context: Any
) -> K | None:
    """Return the table with each wrong key left out, or as its example where it must be given."""
    root, rest = schema_of(kind), copy.deepcopy(dict(data))
    for _ in range(_ROUNDS):
        for each in _details(error):
            for place in _wrong_keys(each):
                _mend(rest, place, root)
        try:
            return kind.model_validate(rest, context=context)
        except ValidationError as further:
            error = further
    return None


def _details(error: ValidationError) -> Iterator[ErrorDetails]:
    for each in error.errors(include_url=False):
        # pydantic calls a list too short that is so only by items that are wrong themselves.
        if each["type"] != "too_short" or len(each["input"]) < each["ctx"]["min_length"]:
            yield each


def _wrong_keys(error: ErrorDetails) -> list[Place]:
    if error["type"] != COMPLAINTS:
        return [error["loc"]]
    return [(*error["loc"], *filter(None, [each.key])) for each in error["ctx"]["found"]]


def _mend(data: Any, place: Place, root: Node) -> None:
    """Leave out the last key on the way to a place that can be left out, or put its example."""
    way: list[tuple[dict[str, Any], str, Place]] = []
    for depth, step in enumerate(place):
        if isinstance(data, dict) and isinstance(step, str):
            way.append((data, step, place[: depth + 1]))
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            break
    if way:
        table, key, at = way[-1]
        examples = node_at(root, at).get("examples")
        if examples:
            table[key] = copy.deepcopy(examples[0])
        else:
            table.pop(key, None)


def path(place: Place) -> str:
    """Return a place as a person writes it: `upstreams[0].limits.tokens_per_min`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _problems(root: Node, error: ErrorDetails, also: tuple[str, ...]) -> Iterator[Problem]:
    inner: Place = tuple(step for step in error["loc"] if step != "[key]")
    place, value, kind = path(inner), error["input"], error["type"]
    node = node_at(root, inner)
    if "[key]" in error["loc"]:
        names = node_at(root, inner[:-1]).get("propertyNames", {})
        near = close_to(str(value), names["enum"]) if "enum" in names else f"must {words(names)}"
        yield Problem(place, "", "is no key of this table", near)
    elif kind == COMPLAINTS:
        for problem in error["ctx"]["found"]:
            yield problem.below(place)
    elif kind == "missing":
        cause = "was the line forgotten, or put under another table?"
        yield Problem(place, "", f"is missing: it must {words(node)}", cause)
    elif kind == "extra_forbidden":
        known = [*node.get("properties", ()), *(also if len(inner) == 1 else ())]
        near = close_to(str(inner[-1]), known)
        yield Problem(place, shown(place, value), "is no key of this table", near)
    elif kind == "value_error":
        yield Problem(place, shown(place, value), str(error["ctx"]["error"]))
    else:
        yield Problem(place, shown(place, value), f"must {words(node)}", _cause(node, place, error))


def _cause(node: Node, place: str, error: ErrorDetails) -> str:
    value, kind = error["input"], node.get("type")
    if kind == "array" and isinstance(value, Mapping):
        return f"tables of a list stand under [[{place.rsplit('.', 1)[-1]}]]"
    if kind == "object" and not isinstance(value, Mapping) and "additionalProperties" in node:
        return f"it stands under its own [{place}]"
    if error["type"].endswith("_type"):
        return _HINTS.get(str(kind), "") if isinstance(value, str | int | float) else ""
    if kind == "number" and "x-rule" not in node and (value <= 0 or value == math.inf):
        return _NOT_LEFT_OUT
    return str(node.get("x-cause", ""))
