"""Parameters that a dataclass declares by rules of the core, as a table that pydantic checks.

For what must run on the standard library alone (providers' parameters are read millions of times
a second by the simulation): the dataclass stays as it is, and only its reading needs pydantic.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from dataclasses import Field as Declared
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, Field, create_model

from penstock.core.rule import Rule
from penstock.schema.json_schema import Node, resolved, schema_of
from penstock.schema.problem import Mistakes
from penstock.schema.reading import read
from penstock.schema.types import Table

_P = TypeVar("_P")


def read_params(
    kind: type[_P], table: Mapping[str, Any], *, where: str, also: tuple[str, ...] = ()
) -> _P:
    """Return the dataclass filled from the table.

    Args:
        kind: a dataclass whose fields' metadata hold a `rule`, a `flag` or the kind of a `table`.
        table: as read from TOML.
        where: how errors name the table.
        also: keys that are read elsewhere, to be named among the known ones.

    Raises:
        Mistakes: a key is unknown or missing, or a value breaks its rule; all of them.

    """
    given = {key: value for key, value in table.items() if key not in also}
    reading = read(table_of(cast("Any", kind), also), given)
    if reading.problems or reading.table is None:
        raise Mistakes([problem.below(where) for problem in reading.problems])
    return cast("_P", _filled(kind, reading.table))


def properties_of(kind: type) -> Node:
    """Return the JSON Schemas of a declared table's keys, by key."""
    root = schema_of(table_of(kind))
    return {name: resolved(root, node) for name, node in root["properties"].items()}


@cache
def table_of(kind: type, also: tuple[str, ...] = ()) -> type[Table]:
    """Return the table that a dataclass declares."""
    # What a model has of its own before what all models have, which is declared by keyword.
    declared = sorted(fields(kind), key=lambda f: bool(f.kw_only))
    keys: dict[str, Any] = {each.name: _key(each) for each in declared}
    keys |= dict.fromkeys(also, (Any, None))
    return create_model(kind.__name__, __base__=Table, __doc__=kind.__doc__, **keys)


def _filled(kind: type, table: Table) -> Any:
    inner = {f.name: f.metadata["table"] for f in fields(kind) if "table" in f.metadata}
    values = {name: getattr(table, name) for name in table.model_fields_set}
    return kind(
        **{
            name: _filled(inner[name], value) if isinstance(value, Table) else value
            for name, value in values.items()
        }
    )


def _key(declared: "Declared[Any]") -> tuple[Any, Any]:
    metadata = declared.metadata
    kind: Any = bool
    if "table" in metadata:
        kind = table_of(metadata["table"])
    elif "rule" in metadata:
        kind = kind_of(metadata["rule"])
    if declared.default is None:
        kind = kind | None
    return kind, ... if declared.default is MISSING else declared.default


def kind_of(rule: Rule) -> Any:
    """Return the type of what a rule allows, in the rule's own words."""
    if rule.choices:
        return Literal[rule.choices]
    bounds: dict[str, Any] = {
        "ge" if rule.low_is_allowed else "gt": rule.low,
        "le" if rule.high_is_allowed else "lt": rule.high,
    }
    number: Any = Field(
        **{name: bound for name, bound in bounds.items() if not math.isinf(bound)},
        multiple_of=1 if rule.whole else None,
        allow_inf_nan=rule.infinite,
        json_schema_extra={"x-rule": str(rule).removeprefix("must ")},
    )
    return Annotated[float, number, AfterValidator(int)] if rule.whole else Annotated[float, number]
