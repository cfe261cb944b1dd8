"""Capacity that changes while the provider runs: parameters replaced at given times."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penstock.core.rule import Rule, shown
from penstock.errors import ConfigError
from penstock.schema.reading import read_params
from penstock.schema.types import Table

_P = TypeVar("_P")
_T = TypeVar("_T", bound=Table)
_P_co = TypeVar("_P_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Change(Generic[_P_co]):
    """From `at_s` on (seconds after the provider's start) these parameters hold."""

    at_s: float
    params: _P_co


class Timeline(Generic[_P]):
    """Changes still to come, in order of time; there may be no end of them.

    Attributes:
        at_s: when the next one comes; inf if none will.

    """

    def __init__(self, changes: Iterable[Change[_P]] = ()) -> None:
        self._rest = iter(changes)
        self._step()

    def pop(self) -> _P:
        """Return the next change's parameters and go on to the one after."""
        params = self._next.params
        self._step()
        return params

    def latest(self, params: _P, *, now: float) -> _P:
        """Return what holds at `now`, if these parameters held until the next change."""
        while self.at_s <= now:
            params = self.pop()
        return params

    def _step(self) -> None:
        coming = next(self._rest, None)
        self.at_s = math.inf if coming is None else coming.at_s
        if coming is not None:
            self._next = coming


def read_changes(start: _T, tables: object, *, where: str) -> tuple[Change[_T], ...]:
    """Return the changes in order of time, each laid over the one before.

    Args:
        start: the parameters at time 0.
        tables: a list of tables such as `{at_s = 60, slots = 4}`.
        where: the key that holds them, for error messages.

    Raises:
        ConfigError: no list of tables, a time that is missing, negative or not growing, or a
            parameter that is unknown or breaks its rule.

    """
    if not isinstance(tables, Sequence) or isinstance(tables, str):
        raise ConfigError(f"{where} = {tables!r}: must be a list of tables with at_s")
    changes: list[Change[_T]] = []
    params, last_s = start, -1.0
    for number, table in enumerate(tables):
        here = f"{where}[{number}]"
        at_s = _time_of(table, after_s=last_s, where=here)
        given: dict[str, Any] = {k: v for k, v in table.items() if k != "at_s"}
        if not given:
            raise ConfigError(f"{here} = {dict(table)!r}: must name at least one parameter")
        told = params.model_dump(exclude_none=True) | given
        params = read_params(type(start), told, where=here, also=("at_s",))
        changes.append(Change(at_s, params))
        last_s = at_s
    return tuple(changes)


def _time_of(table: object, *, after_s: float, where: str) -> float:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} = {table!r}: must be a table with at_s")
    if "at_s" not in table:
        raise ConfigError(f"{where}.at_s: is missing: it must be a finite number of seconds >= 0")
    at_s = table["at_s"]
    if not Rule().allows(at_s):
        raise ConfigError(f"{where}.at_s = {shown(at_s)}: must be a finite number of seconds >= 0")
    if at_s < 0 or at_s <= after_s:
        raise ConfigError(f"{where}.at_s = {at_s!r}: must be >= 0 and later than the one before")
    return float(at_s)
