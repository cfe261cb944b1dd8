"""Rate-limit headers in the vendors' dialects, turned into what the core understands.

Dialects (each seen in the vendor's documentation): OpenAI `x-ratelimit-{limit,remaining,reset}-
{requests,tokens}` with resets such as "6m0s"; Azure OpenAI the same names with plain seconds;
Groq the same names, but its *requests* count a day, not a minute; Anthropic
`anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` with
points in time; and plain `(x-)ratelimit-*` as gateways send, whose windows are read in `gateway`.
"""

from collections.abc import Mapping

from penstock.core.events import LimitsSeen
from penstock.wire.gateway import gateway_limits
from penstock.wire.waits import NO_NUMBER, number, reset_s

_WHAT = ("requests", "tokens", "input_tokens", "output_tokens")
_FIELDS = {"limit": "limit_{}", "remaining": "remaining_{}", "reset": "reset_{}_s"}
_PLAIN = ("", "-policy", "-limit", "-remaining", "-reset")
_DIALECTS: tuple[dict[str, str], ...] = (
    {
        f"anthropic-ratelimit-{what.replace('_', '-')}-{part}": field.format(what)
        for what in _WHAT
        for part, field in _FIELDS.items()
    },
    {
        f"x-ratelimit-{part}-{what}": field.format(what)
        for what in _WHAT[:2]
        for part, field in _FIELDS.items()
    },
    {f"{x}ratelimit{part}": f"ratelimit{part}" for x in ("x-", "") for part in _PLAIN},
)
"""Header to field, or to a gateway's plain name. Where an answer speaks several, the first is
heard: it says the most."""
_GATEWAYS = 2
_DIALECT_OF = {name: index for index, each in enumerate(_DIALECTS) for name in each}


def limits_of(
    upstream: str, headers: Mapping[str, str], *, model: str = "", wall_now: float
) -> LimitsSeen | None:
    """Return the limits that an answer states; None if it states none.

    Args:
        upstream: whose answer it is.
        headers: with names in lower case.
        model: whose request was answered, as the scheduler knows it.
        wall_now: seconds since 1970, for resets given as points in time; the answer's own
            `date`, where it has one, is taken instead, so that a wrong clock does not matter.

    """
    # One pass: an answer of OpenAI's has 23 headers, and a look-up for each name that there
    # might be cost more than everything else that is done for a call (0.2 ms).
    spoken = [_DIALECT_OF[name] for name in headers if name in _DIALECT_OF]
    if not spoken:
        return None
    heard = min(spoken)
    dialect = _DIALECTS[heard]
    said = {dialect[name]: text for name, text in headers.items() if name in dialect}
    if heard == _GATEWAYS:
        said |= {name: headers[name] for name in said if name in headers}  # the standard's word
        if reset := said.get("ratelimit-reset", ""):
            at_s = reset_s(reset, headers, wall_now)
            said["ratelimit-reset"] = repr(NO_NUMBER if at_s is None else at_s)
        found = gateway_limits(said)
    else:
        found = _vendors(said, headers, wall_now)
    if not found:
        return None
    return LimitsSeen(upstream, model=model, **found)  # type: ignore[arg-type]


def _vendors(
    said: Mapping[str, str], headers: Mapping[str, str], wall_now: float
) -> dict[str, float]:
    """Return the fields that a vendor states, whose windows are minutes."""
    found: dict[str, float] = {}
    for field, text in said.items():
        resets = field.startswith("reset_")
        value = reset_s(text, headers, wall_now) if resets else number(text)
        if value is not None or text:
            found[field] = NO_NUMBER if value is None else value
    _drop_daily_requests(headers, found)
    return found


def _drop_daily_requests(headers: Mapping[str, str], found: dict[str, float]) -> None:
    """Keep a limit on requests a day from being taken for one a minute.

    Only its exhaustion matters here; pacing a day's quota evenly would hold work back.
    """
    if not any(name.startswith("x-groq-") for name in headers):
        return
    found.pop("limit_requests", None)
    if found.get("remaining_requests", 1.0) > 0:
        found.pop("remaining_requests", None)
        found.pop("reset_requests_s", None)
