"""Misbehaviour on demand: the header `x-mock-fault`, for tests of clients and proxies."""

from dataclasses import dataclass

_KINDS = (
    "reset",
    "reset_at_once",
    "stall",
    "truncate",
    "bad_sse",
    "not_json",
    "slow_first_token",
    "status",
    "quota",
)
_USUAL_DELAY_S = 10.0


class BrokenOnPurposeError(Exception):
    """The connection is to be broken; nothing more is sent."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What shall go wrong with one call.

    Attributes:
        kind: `reset` (TCP reset after the first token), `reset_at_once`, `stall` (nothing after
            the first token), `truncate` (the body ends early, cleanly closed), `bad_sse` (an
            event that is no JSON, then the end), `not_json` (200 with an HTML page),
            `slow_first_token`, `status`, `quota` (429, the account is spent), or "" for none.
        delay_s: of `slow_first_token`. status: of `status`.

    """

    kind: str = ""
    delay_s: float = 0.0
    status: int = 0


def read_fault(header: str) -> Fault:
    """Return the fault that the header asks for: `kind`, `slow_first_token:3` or `status:503`.

    Raises:
        ValueError: no fault of that name, or a number that is none.

    """
    kind, _, value = header.partition(":")
    if kind and kind not in _KINDS:
        raise ValueError(f"x-mock-fault: {header!r}: must be one of {', '.join(_KINDS)}")
    if kind == "slow_first_token":
        return Fault(kind, delay_s=float(value or _USUAL_DELAY_S))
    if kind == "status":
        status = int(value or 500)
        if not 400 <= status <= 599:
            raise ValueError(f"x-mock-fault: {header!r}: must be a status from 400 to 599")
        return Fault(kind, status=status)
    return Fault(kind)
