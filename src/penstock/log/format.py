"""The decision log's lines: how events, actions and settings are written and read again.

The format is described in docs/reference/decision-log.md; change both, and the version.
"""

import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from hashlib import blake2b
from typing import Any

from penstock.core import events
from penstock.core.events import Action, Event
from penstock.core.model import Request
from penstock.core.settings import Settings

VERSION = 1


def _name(kind: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


EVENTS: dict[str, type] = {_name(kind): kind for kind in typing.get_args(events.Event)}
ACTIONS: dict[str, type] = {_name(kind): kind for kind in typing.get_args(events.Action)}
_ABOUT_A_REQUEST = events.Decision | events.Abandoned
NAMES: dict[type, str] = {kind: name for name, kind in (EVENTS | ACTIONS).items()}
_SHOWN: dict[type, tuple[str, tuple[str, ...]]] = {
    kind: (
        role,
        tuple(
            field.name
            for field in fields(kind)
            if field.name != "request" or not issubclass(kind, _ABOUT_A_REQUEST)
        ),
    )
    for role, kinds in (("event", EVENTS), ("action", ACTIONS))
    for kind in kinds.values()
}
"""By kind: the word before its name, and the fields that are written as they are."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of every file, and of every run in it.

    Attributes:
        version: of the format.
        run: the first part of the public ids of this run.
        started_unix_s: seconds since 1970 at driver time `started_at`.
        started_at: driver seconds; every other time in the file counts on the same clock.
        settings: the scheduler's; None if it was not told.

    """

    version: int
    run: str
    started_unix_s: float
    started_at: float
    settings: Settings | None = None


@dataclass(frozen=True, slots=True)
class LoggedOutcome:
    """How a request ended, with the facts that one wants beside each other.

    Attributes:
        result: "completed", "cancelled", "failed" or "refused".
        traffic_class, tenant, model: as requested.
        p50_tokens, p90_tokens, source: the estimate.
        bucket: the predicted one.
        prompt_tokens: as counted before submission; 0 if it was not.
        output_tokens: the real count; None if unknown.
        queued_s: from submission to the last dispatch; to the end if there was none.
        first_token_s: from submission to the first token; None if none was seen.
        latency_s: from submission to the end.
        attempts: how often it was sent.
        upstream: where it was sent last; empty if nowhere.
        in_time: whether it completed by its deadline; None without a deadline.
        route: the kind of call that the estimate was made for; empty if none.

    """

    result: str
    traffic_class: str
    tenant: str
    model: str
    p50_tokens: float
    p90_tokens: float
    source: str
    bucket: str
    prompt_tokens: int
    output_tokens: int | None
    queued_s: float
    first_token_s: float | None
    latency_s: float
    attempts: int
    upstream: str
    in_time: bool | None
    route: str = ""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line, read again.

    Attributes:
        header: of the run that wrote it.
        now: the scheduler's time, driver seconds.
        what: the event or the action.
        outcome: with the line that ended a request.

    """

    header: Header
    now: float
    what: Event | Action
    outcome: LoggedOutcome | None = None

    @property
    def request_id(self) -> int | None:
        """The request that it is about; None for wake-ups, draining, limits, windows."""
        if isinstance(self.what, events.Arrived | _ABOUT_A_REQUEST):
            return self.what.request.id
        return getattr(self.what, "request_id", None)

    @property
    def id(self) -> str | None:
        """The request's public id, as `penstock explain` takes it."""
        number = self.request_id
        return None if number is None else f"{self.header.run}-{number}"


def veiled(request: Request) -> Request:
    """Return the request as it may be logged: its session, a caller's word, only as a digest.

    Equal sessions stay equal, so a replay makes the same sticky choices.
    """
    if not request.session:
        return request
    digest = blake2b(request.session.encode(), digest_size=8).hexdigest()
    return replace(request, session=digest)


def line_of(now: float, what: Event | Action, outcome: LoggedOutcome | None) -> dict[str, Any]:
    """Return the line for an event or an action, ready for `jsonio.dumps`."""
    kind = type(what)
    role, shown = _SHOWN[kind]
    line: dict[str, Any] = {"now": now, role: NAMES[kind]}
    if isinstance(what, _ABOUT_A_REQUEST):
        line["request_id"] = what.request.id
    for name in shown:
        line[name] = getattr(what, name)
    if outcome is not None:
        line["outcome"] = outcome
    return line


_PLAIN = frozenset((int, float, str, type(None)))


def decode(kind: Any, data: Any) -> Any:
    """Return `data` (parsed JSON) as an object of `kind`; null stands for inf where it must.

    Raises:
        ValueError: the data has another shape.

    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data)
    if isinstance(kind, type) and is_dataclass(kind):
        return kind(**decode_fields(kind, data))
    if origin is tuple:
        return tuple(decode(typing.get_args(kind)[0], each) for each in data)
    if origin in (Mapping, dict):
        value_kind = typing.get_args(kind)[1]
        return {key: decode(value_kind, each) for key, each in data.items()}
    if kind is float:
        return math.inf if data is None else float(data)
    return kind(data) if isinstance(kind, type) else data


def _decode_union(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in kinds:
        return None
    for kind in kinds:
        if is_dataclass(kind) and isinstance(data, dict):
            return decode(kind, data)
    if type(data) in kinds:
        return data
    if float in kinds and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if any(map(is_dataclass, kinds)):
        raise ValueError(f"{data!r:.60}: an object was expected")
    if _PLAIN.issuperset(kinds):
        raise ValueError(f"{data!r:.60}: a text or a number was expected")
    return data


def decode_fields(kind: Any, data: Any) -> dict[str, Any]:
    """Return the fields of a `kind` that stand in its `data`.

    Raises:
        ValueError: the data has another shape.

    """
    if not isinstance(data, dict):
        raise ValueError(f"{data!r:.60} is no {kind.__name__}: an object was expected")
    hints = _hints(kind)
    unknown = sorted(data.keys() - hints.keys())
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}: was it written later?")
    return {name: decode(hints[name], value) for name, value in data.items()}


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields; finding them is dear."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
