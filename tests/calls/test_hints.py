"""One grammar of hints, at every door: what is asked by header is understood or refused by name."""

import pytest

from penstock.calls.hints import (
    NO_HINTS,
    HintError,
    Hints,
    hints_of,
    ignored_of,
    timeout_s_of,
    told_of,
)
from penstock.core.model import TokenEstimate


def test_hints_come_from_headers_and_other_headers_are_passed_over() -> None:
    headers = [
        (b"x-penstock-class", b"batch"),
        (b"x-penstock-deadline-ms", b"1500"),
        (b"x-penstock-tenant", b"reports"),
        (b"x-penstock-of-tomorrow", b"?"),
        (b"authorization", b"Bearer k"),
    ]
    assert hints_of(headers) == Hints("batch", 1.5, "reports")
    assert hints_of([]) is NO_HINTS


@pytest.mark.parametrize(
    ("text", "p50", "p90"), [("40", 40, 40), ("40,90", 40, 90), ("9, 9.5", 9, 9.5)]
)
def test_a_call_states_its_length(text: str, p50: float, p90: float) -> None:
    hints = hints_of([(b"x-penstock-tokens", text.encode())])
    assert hints == Hints(tokens=TokenEstimate(p50, p90, "caller"))


NO_TOKENS = ["", "0", "-3", "90,40", "40,", "1,2,3", "nan", "1e3", "many", "9" * 12, "9" * 4000]
NO_TIMES = ["0", "-5", "soon", "inf", "nan", "", "1e999", "1764432000000", "9" * 4000]
NO_NAMES = ["", "a b", "a" * 129, "Grüße", "a\nb"]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        *((b"x-penstock-tokens", text) for text in NO_TOKENS),
        *((b"x-penstock-deadline-ms", text) for text in NO_TIMES),
        *((b"x-penstock-class", text) for text in NO_NAMES),
        *((b"x-penstock-tenant", text) for text in NO_NAMES),
        *((b"x-penstock-session", text) for text in NO_NAMES),
        *((b"x-penstock-route", text) for text in NO_NAMES),
    ],
)
def test_a_hint_that_cannot_be_is_refused_with_its_name_and_value(header: bytes, text: str) -> None:
    with pytest.raises(HintError) as refused:
        hints_of([(header, text.encode("latin-1"))])
    assert str(refused.value).startswith(f"{header.decode()}={text[:40]!r} is no ")
    assert len(str(refused.value)) < 300


def test_a_hint_that_stands_twice_is_refused() -> None:
    with pytest.raises(HintError, match="x-penstock-tenant must not stand twice"):
        hints_of([(b"x-penstock-tenant", b"a"), (b"x-penstock-tenant", b"b")])


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["x-penstock-clas"], "x-penstock-clas (did you mean x-penstock-class?)"),
        (["x-penstock-tenant-id"], "x-penstock-tenant-id (did you mean x-penstock-tenant?)"),
        (["x-penstock-zzz", "x-penstock-"], "x-penstock-zzz, x-penstock-"),
        (["x-penstock-" + "\xe9" * 99], "x-penstock-" + "?" * 29),
        # No more is compared than is shown: 16 kB beside each known name would take milliseconds.
        (
            ["x-penstock-safe-to-repeat" + "-" * 16_000],
            "x-penstock-safe-to-repeat--------------- (did you mean x-penstock-safe-to-repeat?)",
        ),
        ([f"x-penstock-{n}" for n in range(99)], ", ".join(f"x-penstock-{n}" for n in range(4))),
        (["x-penstock-progress", "x-penstock-safe-to-repeat", "x-other"], ""),
    ],
)
def test_a_header_that_would_be_a_hint_and_is_none_is_named(names: list[str], told: str) -> None:
    assert told_of(ignored_of((name.encode("latin-1"), b"x") for name in names)) == told


def test_a_calls_own_hints_go_before_those_of_its_block() -> None:
    block = Hints("batch", 9.0, session="s")
    assert Hints("interactive").over(block) == Hints("interactive", 9.0, session="s")


@pytest.mark.parametrize(
    ("head", "waits_s"),
    [
        ({b"x-stainless-read-timeout": b"60.0"}, 60.0),  # openai and anthropic for Python
        ({b"x-stainless-timeout": b"600"}, 600.0),  # both for node
        ({b"x-stainless-read-timeout": b"None", b"x-stainless-timeout": b"NOT_GIVEN"}, None),
        ({b"x-stainless-timeout": b"0"}, None),
        ({b"x-stainless-timeout": b"nan"}, None),
        ({}, None),
    ],
)
def test_how_long_an_sdk_waits_is_read_where_it_says_so(
    head: dict[bytes, bytes], waits_s: float | None
) -> None:
    assert timeout_s_of(head) == waits_s
