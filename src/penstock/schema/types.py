"""The types of keys, each with its bounds and its unit."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from penstock.core.rule import Rule
from penstock.schema.problem import Problem, shown

T = TypeVar("T")
Complaints = Iterator[tuple[str, str]]
"""Keys of a table, each with the rule that it breaks together with others."""
COMPLAINTS = "complaints"
"""The type of the pydantic error that carries them."""


class Table(BaseModel):
    """A table of a file. Its docstring and its keys' descriptions are the reference manual."""

    # Strict: "8787" is no number and 1 is not true, as in TOML itself.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def complaints(self) -> Complaints:
        """Yield what contradicts itself: keys, and the rules that they break."""
        yield from ()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        found = [Problem(key, self._shown(key), rule) for key, rule in self.complaints()]
        if found:
            raise PydanticCustomError(COMPLAINTS, "contradicts itself", {"found": found})
        return self

    def _shown(self, key: str) -> str:
        value = getattr(self, key, None)
        return "" if value is None else shown(key, value)


def _says(rule: str, cause: str = "") -> dict[str, Any]:
    return {"x-rule": rule, "x-cause": cause} if cause else {"x-rule": rule}


def _number(unit: str, *, gt: float | None = None, ge: float | None = None) -> Any:
    extra: dict[str, Any] = {"x-unit": unit}
    return Field(gt=gt, ge=ge, allow_inf_nan=False, json_schema_extra=extra)


def ruled(rule: Rule, default: Any = ...) -> Any:
    """Declare a number that obeys a rule of the core's; a default of None lets it be left out."""
    bounds: dict[str, Any] = {
        "ge" if rule.low_is_allowed else "gt": rule.low,
        "le" if rule.high_is_allowed else "lt": rule.high,
    }
    return Field(
        default,
        **{name: bound for name, bound in bounds.items() if not math.isinf(bound)},
        allow_inf_nan=None if rule.whole else rule.infinite,
        json_schema_extra={"x-rule": str(rule).removeprefix("must ")},
    )


Items = Annotated[tuple[T, ...], Strict(False)]
"""A list, every item by one rule. Not strict, or nothing but a Python tuple would do."""
Seconds = Annotated[float, _number("seconds", gt=0)]
SecondsOrZero = Annotated[float, _number("seconds", ge=0)]
Tokens = Annotated[float, _number("tokens", gt=0)]
TokensOfReply = Annotated[float, _number("tokens", ge=1)]
PerMinute = Annotated[float, _number("", ge=1e-3)]
Weight = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
"""As `core.model.WEIGHT`; a class that weighs a millionth of another is never served beside it."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Label = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$",
        json_schema_extra=_says(
            "be 1 to 64 letters, digits or _.:- that start with a letter or digit"
        ),
    ),
]
"""A name that can stand in headers, metrics' labels and logs."""
EnvName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        json_schema_extra=_says(
            "name an environment variable (letters, digits, _)",
            "did the key itself get in here? Then take it for leaked",
        ),
    ),
]
"""The name of an environment variable; a key itself never stands in the file."""
