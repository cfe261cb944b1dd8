"""The troubles: what goes wrong, from when, for how long."""

import json
from dataclasses import dataclass, replace

from benchmarks.troubles.callers import Calls
from benchmarks.troubles.lives import LIVES
from benchmarks.troubles.provider import (
    REPLY,
    SERVICE_S,
    SLOTS,
    USAGE,
    Answer,
    Fault,
    at_once,
    both,
    during,
    error,
    held_until,
    per_minute,
    poison,
    refusal,
    with_stream,
)

START = 10.0
"""When trouble begins: after 40 calls."""
USUAL, STREAMING, AT_ONCE = Calls(), Calls(streams=True), Calls(every_s=0.0)
LEAVING = Calls(in_time_s=10.0, leaves=True)
LONG = Calls(every_s=1.5, in_time_s=60.0)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One row.

    Attributes:
        name: what goes wrong.
        fault: what the provider does.
        until: when it is over, in seconds; None if it is not.
        calls: what the program asks.
        slots, service_s: of the provider.
        holds: when the program's own event loop is held, and for how long, in seconds.
        life: what befalls the program after half of its calls (`lives`); "" if nothing.

    """

    name: str
    fault: Fault
    until: float | None = None
    calls: Calls = USUAL
    slots: int = SLOTS
    service_s: float = SERVICE_S
    holds: tuple[tuple[float, float], ...] = ()
    life: str = ""


RESET = Answer(ends="reset", after_s=0.05)
TOO_LARGE = refusal(
    429,
    body=error(
        "Request too large for m on tokens per min (TPM): Limit 30000, Requested 45000.",
        "rate_limit_exceeded",
        "tokens",
    ),
)
SPENT = refusal(429, body=error("You exceeded your current quota", "insufficient_quota"))
NEVER = refusal(500, more={"x-should-retry": "false"})
HUGE = json.dumps({**json.loads(REPLY), "usage": {**USAGE, "completion_tokens": 10**400}})
REFUSED = {"429": refusal(429), "503": refusal(503), "500": refusal(500), "reset": RESET}
CLAIM = Answer(200, after_s=0.0)


def _for(name: str, answer: Answer | Fault, spans_s: tuple[float, ...]) -> list[Trouble]:
    return [
        Trouble(f"{name}, {span:g} s", during(START, START + span, answer), START + span)
        for span in spans_s
    ]


def _share(name: str, answer: Answer | Fault, shares: tuple[float, ...]) -> list[Trouble]:
    return [
        Trouble(f"{name}, {share:.0%} of attempts", during(0.0, 1e9, answer, share=share))
        for share in shares
    ]


def _newcomers(name: str, answer: Answer, *, attempts: str = "attempt") -> Trouble:
    most = 1 if attempts == "attempt" else 2
    return Trouble(
        f"each call's first {attempts}: {name}",
        lambda attempt: answer if attempt.nth <= most else None,
    )


def _first(answer: Answer, *, calls: int = 1, others: Answer | None = None) -> Fault:
    return lambda attempt: answer if attempt.number < calls else others


def _first_waves() -> list[Trouble]:
    """Return rows of 200 calls that all come at once to a provider that refuses."""
    faults = {
        "429 above 8": at_once(8, refusal(429)),
        "429 above 8, retry-after 1": at_once(8, refusal(429, wait=1)),
        "503 above 8": at_once(8, refusal(503)),
        "529 for 5 s": during(0.0, 5.0, refusal(529)),
        "429 for 5 s, retry-after 2": during(0.0, 5.0, refusal(429, wait=2)),
        "600 a minute, not stated": per_minute(600, stated=False),
    }
    rows = [Trouble(f"all at once, {name}", fault, calls=AT_ONCE) for name, fault in faults.items()]
    return [replace(row, until=5.0) if " 5 s" in row.name else row for row in rows]


def _one_stating(number: int) -> Trouble:
    """Return the row of one call alone whose answer states that one a minute goes, and has gone."""
    said = {"x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "0"}
    answer = Answer(200, tuple(said.items()), after_s=0.0)
    return Trouble(
        "a limit of 1 a minute stated once",
        lambda attempt: answer if attempt.number == number else None,
        START + 1.0,
    )


def _stating(name: str, *headers: tuple[str, str]) -> Trouble:
    answer = Answer(200, headers, after_s=0.0)
    return Trouble(name, during(START, START + 1.0, answer, share=0.5), START + 1.0)


def troubles() -> list[Trouble]:
    """Return every row."""
    rows = [Trouble("none", lambda _attempt: None)]
    rows += _first_waves()
    for life in LIVES:
        rows.append(Trouble(life, lambda _attempt: None, life=life))
        rows.append(Trouble(f"{life} amid 429", during(20.0, 30.0, refusal(429)), life=life))
    rows += _for("429", refusal(429), (2.0, 5.0, 20.0))
    rows += _for("429, retry-after 1", refusal(429, wait=1), (2.0, 10.0))
    rows += _for("429, retry-after 5", refusal(429, wait=5), (5.0,))
    rows += _for("503", refusal(503), (2.0, 5.0, 20.0))
    rows += _for("503, retry-after 2", refusal(503, wait=2), (5.0,))
    rows += _for("529", refusal(529), (2.0, 5.0, 20.0))
    rows += [
        replace(row, name=f"{row.name}, callers leave after 10 s", calls=LEAVING)
        for row in _for("529", refusal(529), (20.0,)) + _for("429", refusal(429), (20.0,))
    ]
    rows += _for("500", refusal(500), (2.0, 10.0))
    rows += _for("502", refusal(502), (5.0,))
    rows += _for("504 after 3 s", Answer(504, body=error("slow"), after_s=3.0), (5.0,))
    rows += _for("reset", RESET, (2.0, 5.0))
    rows += _for("a page under status 200", Answer(200, body=b"<html>sorry</html>"), (5.0,))
    rows += _for("an error under status 200", Answer(200, body=error("overloaded")), (5.0,))
    rows += _for("silent", held_until(START + 5.0), (5.0,))
    rows += _for("slower by 3 s", Answer(200, after_s=3.0), (10.0,))
    rows += _share("429", refusal(429), (0.05, 0.2, 0.5))
    rows += _share("429, retry-after 1", refusal(429, wait=1), (0.05, 0.2))
    rows += _share("503", refusal(503), (0.05, 0.2))
    rows += _share("529", refusal(529), (0.05, 0.3))
    rows += _share("500", refusal(500), (0.05, 0.2, 0.5))
    rows += _share("500, not to be repeated", NEVER, (0.05,))
    rows += _share("reset", RESET, (0.05, 0.2))
    rows += [
        replace(row, name=f"{row.name}, calls of 20 s", calls=LONG, slots=64, service_s=20.0)
        for status in (429, 529)
        for row in _share(str(status), refusal(status), (0.1,))
    ]
    rows += _share("400", refusal(400), (0.1,))
    rows += _share("404", refusal(404), (0.1,))
    rows += _share("a page under status 200", Answer(200, body=b"<html></html>"), (0.1,))
    rows += _share("slower by 5 s", Answer(200, after_s=5.0), (0.05,))
    rows += _share("429, retry-after words", refusal(429, wait="soon"), (0.1,))
    rows += _share("429, retry-after 0", refusal(429, wait=0), (0.1,))
    rows += [
        Trouble("one call in 20 is too large", poison(TOO_LARGE)),
        Trouble("one call in 20 is always answered 500", poison(refusal(500))),
        Trouble("one call in 20 is always reset", poison(RESET)),
        Trouble("one call in 20 is always answered 429", poison(refusal(429))),
        *(_newcomers(name, answer) for name, answer in REFUSED.items()),
        *(_newcomers(name, REFUSED[name], attempts="2 attempts") for name in ("500", "reset")),
        Trouble("the first call is always answered 429", _first(refusal(429))),
        Trouble("the first call is always answered 429, 20 s", _first(refusal(429, wait=20))),
        Trouble("the first call is always answered 503, 20 s", _first(refusal(503, wait=20))),
        Trouble("the first call is always answered 503, 3600 s", _first(refusal(503, wait=3600))),
        Trouble("the first call is always answered 529", _first(refusal(529))),
        Trouble("the first call is always reset", _first(RESET)),
        Trouble(
            "the first 2 calls are always answered 429, 20 s",
            _first(refusal(429, wait=20), calls=2),
        ),
        Trouble(
            "the first 3 calls are always answered 429, 20 s",
            _first(refusal(429, wait=20), calls=3),
        ),
        Trouble(
            "the first call is always answered 429, 20 s, others take 5 s",
            _first(refusal(429, wait=20), others=Answer(200, after_s=4.5)),
            slots=32,
        ),
        Trouble("one call in 20 is always answered 429, 20 s", poison(refusal(429, wait=20))),
        Trouble("one call in 20 is always answered 503, 20 s", poison(refusal(503, wait=20))),
        Trouble("one call in 20 takes 25 s", poison(Answer(200, after_s=25.0))),
        Trouble("one 'insufficient_quota'", during(START, START + 0.3, SPENT), START + 0.3),
        Trouble(
            "one 429 with retry-after 3600", during(START, START + 0.3, refusal(429, wait=3600))
        ),
        Trouble("one 429 with retry-after 40", during(START, START + 0.2, refusal(429, wait=40))),
        Trouble("one 503 with retry-after 40", during(START, START + 0.2, refusal(503, wait=40))),
        Trouble(
            "one 503 with retry-after 1e300", during(START, START + 0.3, refusal(503, wait=1e300))
        ),
        Trouble("300 calls a minute, stated", per_minute(300, stated=True)),
        Trouble("200 calls a minute, stated", per_minute(200, stated=True)),
        Trouble("200 calls a minute, not stated", per_minute(200, stated=False)),
        Trouble(
            "200 calls a minute, not stated, one call in 20 always answered 429, 20 s",
            both(poison(refusal(429, wait=20)), per_minute(200, stated=False)),
        ),
        Trouble("429 above 3 at once", at_once(3, refusal(429))),
        Trouble("503 above 2 at once", at_once(2, refusal(503))),
        Trouble("queues above 3 at once", lambda _attempt: None, slots=3),
        Trouble(
            "streams cut, 10% of attempts",
            during(0.0, 1e9, Answer(200, after_s=0.0, ends="cut"), share=0.1),
            calls=STREAMING,
        ),
        Trouble(
            "streams cut, 5 s",
            during(START, START + 5.0, Answer(200, after_s=0.0, ends="cut")),
            START + 5.0,
            calls=STREAMING,
        ),
        Trouble(
            "a usage of 10^400",
            during(START, START + 1.0, with_stream(CLAIM, ((0.0, HUGE.encode()),))),
            START + 1.0,
        ),
        _stating("a limit of 5 a minute stated", ("x-ratelimit-limit-requests", "5")),
        _one_stating(round(START / USUAL.every_s)),
        _stating("a limit of 1e-300 stated", ("x-ratelimit-limit-requests", "1e-300")),
        _stating(
            "nothing left for a year stated",
            ("x-ratelimit-limit-requests", "1000"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "8760h"),
        ),
        _stating("RateLimit: ;", ("ratelimit", ";"), ("ratelimit-policy", ";")),
        Trouble(
            "the program's loop held 0.3 s each second",
            lambda _attempt: None,
            holds=tuple((float(at), 0.3) for at in range(5, 50)),
        ),
        Trouble("the program's loop held 3 s", lambda _attempt: None, 13.0, holds=((START, 3.0),)),
    ]
    return rows
