"""A request goes on to another model when its own cannot serve it, and never once it has begun."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.core.events import Pinned
from penstock.log.reader import read_log, replayed
from tests.proxy.sidecars import (
    GOOD_REPLY,
    UNPREDICTED,
    Reply,
    SidecarThread,
    call,
    connect,
    eventually,
    raw_request,
    sidecar,
)
from tests.proxy.test_relay import InTurn, Scripted, scripted

MESSAGES = [{"role": "user", "content": "hello there"}]
ALL = ("quota", "rate", "overload", "down", "late", "context_length")


def answer(status: str, body: bytes, head: str = "") -> bytes:
    lines = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{head}"
    return f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body


def error(code: str, message: str = "no") -> bytes:
    return json.dumps({"error": {"code": code, "type": code, "message": message}}).encode()


QUOTA = answer("429 Too Many Requests", error("insufficient_quota"))
RATE = answer("429 Too Many Requests", error("rate_limit_exceeded"), "retry-after: 30\r\n")
OVERLOAD = answer("503 Service Unavailable", error("overloaded"), "retry-after: 30\r\n")
BROKEN = answer("500 Internal Server Error", error("server_error"))
TOO_LONG = answer("400 Bad Request", error("context_length_exceeded"))
WRONG = answer("400 Bad Request", error("invalid_request_error"))
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
OVERLOADED_STREAM = EVENTS + b"data: " + error("overloaded") + b"\n\n"
BEGUN_STREAM = EVENTS + b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n'


@dataclass
class Providers:
    """A sidecar with a model `a` at one provider and `b` at another."""

    proxy: SidecarThread
    main: Scripted
    spare: Scripted

    def ask(
        self, model: str = "a", *, headers: dict[str, str] | None = None, **body: object
    ) -> Reply:
        sent = {"model": model, "messages": MESSAGES, **body}
        return call(self.proxy.port, body=sent, headers=headers)

    @property
    def asked(self) -> tuple[int, int]:
        """How many requests each provider has had."""
        return len(self.main.requests), len(self.spare.requests)


def rule(model: str, to: str, when: tuple[str, ...] = ALL, more: str = "") -> str:
    return f'[[fallbacks]]\nmodel = "{model}"\nto_model = "{to}"\nwhen = {list(when)}\n{more}\n'


def config(
    main: int, spare: int, rules: str, *, window: int = 8, s_per_token: float = 0.001
) -> str:
    upstream = """
[[upstreams]]
name = "{0}"
base_url = "http://127.0.0.1:{1}/v1"
models = ["{2}"]
auth = "none"
s_per_token = {3}
base_s = 0.01
"""
    return f"""
[server]
port = 0
[admin]
port = 0
{UNPREDICTED}
[anonymous]
shortest_deadline_s = 0.001
[scheduler.capacity]
kind = "fixed"
window = {window}
{upstream.format("main", main, "a", s_per_token)}
{upstream.format("spare", spare, "b*", 0.001)}
{rules}
"""


@contextmanager
def providers(
    main: bytes,
    spare: bytes = GOOD_REPLY,
    *,
    rules: str = rule("a", "b"),
    close: bool = False,
    window: int = 8,
    answers: bool = True,
    s_per_token: float = 0.001,
) -> Iterator[Providers]:
    with ExitStack() as stack:
        one, other = (stack.enter_context(scripted([each], close=close)) for each in (main, spare))
        one.go(100 if answers else 0)
        other.go(100)
        toml = config(one.port, other.port, rules, window=window, s_per_token=s_per_token)
        yield Providers(stack.enter_context(sidecar(toml)), one, other)


def came_from(reply: Reply) -> tuple[str | None, ...]:
    names = ("served-model", "fallback-from", "fallback-reason")
    return tuple(reply.headers.get(f"x-penstock-{name}") for name in names)


@pytest.mark.parametrize(
    ("cause", "said"),
    [("quota", QUOTA), ("rate", RATE), ("overload", OVERLOAD), ("context_length", TOO_LONG)],
)
def test_what_is_refused_goes_on_and_the_answer_says_so(cause: str, said: bytes) -> None:
    with providers(said, rules=rule("a", "b", (cause,))) as both:
        reply = both.ask(stream=False)

        assert reply.status == 200
        assert came_from(reply) == ("b", "a", cause)
        assert both.asked == (1, 1)
        sent = both.spare.requests[0].partition(b"\r\n\r\n")[2]
        assert json.loads(sent) == {"model": "b", "messages": MESSAGES, "stream": False}
        counted = f'penstock_fallbacks_total{{model="a",to="b",reason="{cause}"}} 1.0'
        page = both.proxy.metrics().replace(
            'reason="' + cause + '",to="b"', f'to="b",reason="{cause}"'
        )
        assert counted in page


@pytest.mark.parametrize(
    ("cause", "said", "refusals"),
    [("quota", QUOTA, 1), ("rate", RATE, 2), ("overload", OVERLOAD, 2)],
)
def test_the_next_one_goes_there_without_having_waited(
    cause: str, said: bytes, refusals: int
) -> None:
    """A spent account is believed at once; the first refusal of another kind may be of one call."""
    with providers(said, rules=rule("a", "b", (cause,))) as both:
        for _ in range(refusals):
            both.ask()
        reply = both.ask()

        assert came_from(reply) == ("b", "a", cause)
        assert both.asked == (refusals, refusals + 1)


@pytest.mark.parametrize(
    "said",
    [BROKEN, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"HT"],
    ids=["server error", "half a body", "half a head"],
)
def test_an_upstream_that_fails_again_and_again_before_its_first_byte_is_down(said: bytes) -> None:
    with providers(said, rules=rule("a", "b", ("down",)), close=True) as both:
        reply = both.ask()

        assert (reply.status, *came_from(reply)) == (200, "b", "a", "down")
        assert both.asked[1] == 1


def test_an_upstream_that_nobody_answers_at_is_down_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with scripted([GOOD_REPLY]) as spare:
        spare.go(9)
        with sidecar(config(port, spare.port, rule("a", "b", ("down",)))) as proxy:
            reply = call(proxy.port, body={"model": "a", "messages": MESSAGES})

    assert (reply.status, *came_from(reply)) == (200, "b", "a", "down")


def test_a_stream_that_begins_with_an_overload_goes_on() -> None:
    with providers(OVERLOADED_STREAM, rules=rule("a", "b", ("overload",)), close=True) as both:
        reply = both.ask(stream=True)

    assert (reply.status, *came_from(reply)) == (200, "b", "a", "overload")


def test_nothing_goes_on_after_the_first_byte() -> None:
    with providers(BEGUN_STREAM, close=True) as both, connect(both.proxy.port) as caller:
        caller.sendall(raw_request({"model": "a", "messages": MESSAGES, "stream": True}))
        got = b""
        while piece := caller.recv(65536):
            got += piece

        assert b"one" in got
        assert not got.endswith(b"0\r\n\r\n")
        assert b"x-penstock-fallback" not in got
        eventually(both.proxy.idle)
        assert both.asked == (1, 0)


def test_what_waits_too_long_to_be_in_time_goes_to_a_model_that_is() -> None:
    rules = rule("a", "b", ("late",))
    with (
        providers(GOOD_REPLY, rules=rules, window=1, s_per_token=0.1, answers=False) as both,
        connect(both.proxy.port) as caller,
    ):
        caller.sendall(raw_request({"model": "a", "messages": MESSAGES, "max_tokens": 50}))
        eventually(lambda: both.asked == (1, 0))
        reply = both.ask(headers={"x-penstock-deadline-ms": "8000"}, max_tokens=50)

        assert (reply.status, *came_from(reply)) == (200, "b", "a", "late")
        assert both.asked == (1, 1)


def test_what_takes_too_long_to_be_in_time_goes_to_a_model_that_is() -> None:
    with providers(GOOD_REPLY, rules=rule("a", "b", ("late",)), s_per_token=0.1) as both:
        in_time = both.ask(headers={"x-penstock-deadline-ms": "8000"}, max_tokens=50)
        late = both.ask(headers={"x-penstock-deadline-ms": "3000"}, max_tokens=50)

        assert [came_from(each)[2] for each in (in_time, late)] == [None, "late"]
        assert both.asked == (1, 1)


def test_what_has_waited_to_its_last_moment_goes_to_a_model_that_is_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where so many wait that nobody works out its turn."""
    monkeypatch.setattr("penstock.proxy.fallback.MOST_PLACED", 0)
    with (
        providers(
            GOOD_REPLY, rules=rule("a", "b", ("late",)), window=1, s_per_token=0.1, answers=False
        ) as both,
        connect(both.proxy.port) as caller,
    ):
        caller.sendall(raw_request({"model": "a", "messages": MESSAGES, "max_tokens": 50}))
        eventually(lambda: both.asked == (1, 0))
        reply = both.ask(headers={"x-penstock-deadline-ms": "6000"}, max_tokens=50)

        assert (reply.status, *came_from(reply)) == (200, "b", "a", "late")


def test_a_pause_that_an_operator_pins_is_down_also_for_what_waits_already() -> None:
    with (
        providers(GOOD_REPLY, rules=rule("a", "b", ("down",)), window=1, answers=False) as both,
        connect(both.proxy.port) as first,
        connect(both.proxy.port) as second,
    ):
        body = {"model": "a", "messages": MESSAGES}
        first.sendall(raw_request(body))
        eventually(lambda: both.asked == (1, 0))
        second.sendall(raw_request(body))
        eventually(lambda: both.proxy.snapshot().waiting == 1)
        assert both.proxy.running is not None
        driver = both.proxy.running.sidecar.driver
        driver.tell(Pinned("pause", "main", 0.0, driver.now() + 1000.0))

        assert b"x-penstock-fallback-reason: down" in second.recv(65536)
        assert both.asked == (1, 1)


def test_a_log_of_requests_that_went_on_replays_exactly(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = f'[log]\ndecisions_path = "{path}"\n'
    with providers(OVERLOAD, rules=rule("a", "b") + log) as both:
        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(lambda _: both.ask(), range(12)))
        assert {came_from(each)[0] for each in replies} == {"b"}
        eventually(both.proxy.idle)

    moments = list(replayed(read_log(path)))
    assert sum(len(recorded) for _, recorded, _ in moments) >= 12
    assert all(recorded == decided for _, recorded, decided in moments)


def test_a_deadline_that_the_fallback_would_miss_too_is_no_reason_to_leave() -> None:
    with providers(GOOD_REPLY, rules=rule("a", "b", ("late",))) as both:
        reply = both.ask(headers={"x-penstock-deadline-ms": "1"})

        assert came_from(reply) == (None, None, None)
        assert both.asked[1] == 0


@pytest.mark.parametrize("said", [QUOTA, TOO_LONG])
def test_a_caller_may_forbid_it(said: bytes) -> None:
    with providers(said) as both:
        reply = both.ask(headers={"x-penstock-fallback": "never"})

        assert (reply.status, both.asked) == (int(said.split()[1]), (1, 0))
        assert came_from(reply) == (None, None, None)


def test_no_other_wish_is_known() -> None:
    with providers(GOOD_REPLY) as both:
        reply = both.ask(headers={"x-penstock-fallback": "always"})

        assert reply.status == 400
        assert "must be never" in reply.json()["error"]["message"]


def test_the_callers_own_mistake_and_causes_that_are_not_listed_stay() -> None:
    with providers(WRONG) as both:
        assert (both.ask().status, both.asked) == (400, (1, 0))
    with providers(QUOTA, rules=rule("a", "b", ("rate",))) as both:
        assert (both.ask().status, both.asked) == (429, (1, 0))


def test_a_loop_asks_each_model_once_and_ends_where_it_began() -> None:
    rules = rule("a", "b") + rule("b", "a")
    with providers(QUOTA, QUOTA, rules=rules) as both:
        reply = both.ask()

        assert (reply.status, both.asked) == (429, (1, 1))
        assert came_from(reply)[0] == "b"


def test_with_both_down_there_is_one_answer_and_the_request_ends() -> None:
    with providers(BROKEN, BROKEN, rules=rule("a", "b", ("down",))) as both:
        reply = both.ask(headers={"x-penstock-deadline-ms": "5000"})

        assert reply.status in (500, 502, 504)
        eventually(both.proxy.idle)


def test_from_a_fallback_in_trouble_it_goes_back_to_where_it_began() -> None:
    soon = answer("503 Service Unavailable", error("overloaded"), "retry-after: 0.3\r\n")
    with providers(soon, OVERLOAD, rules=rule("a", "b")) as both:
        both.main.pieces = InTurn([soon, GOOD_REPLY])
        reply = both.ask()

        assert (reply.status, *came_from(reply)) == (200, "a", "a, b", "overload, overload")


def test_a_packed_body_goes_on_unpacked() -> None:
    body = gzip.compress(json.dumps({"model": "a", "messages": MESSAGES}).encode())
    with providers(QUOTA) as both:
        reply = call(both.proxy.port, body=body, headers={"content-encoding": "gzip"})

        assert reply.status == 200
        head, _, sent = both.spare.requests[0].partition(b"\r\n\r\n")
        assert b"content-encoding" not in head.lower()
        assert json.loads(sent) == {"model": "b", "messages": MESSAGES}


def test_a_caller_that_leaves_on_any_leg_gives_its_place_back() -> None:
    with providers(QUOTA, rules=rule("a", "b"), window=1) as both:
        while both.spare.left():
            both.spare._wait()
        body = raw_request({"model": "a", "messages": MESSAGES})
        with connect(both.proxy.port) as first, connect(both.proxy.port) as second:
            first.sendall(body)
            eventually(lambda: both.asked == (1, 1))
            second.sendall(body)
            eventually(lambda: both.proxy.snapshot().waiting == 1)
        eventually(both.proxy.idle)


def test_what_the_provider_may_still_work_on_goes_on_only_if_the_caller_says_so() -> None:
    more = "first_byte_timeout_s = 0.2\n"
    with scripted([GOOD_REPLY]) as main, scripted([GOOD_REPLY]) as spare:
        spare.go(9)
        toml = config(main.port, spare.port, rule("a", "b", ("down",)))
        with sidecar(toml.replace('models = ["a"]\n', f'models = ["a"]\n{more}')) as proxy:
            body = {"model": "a", "messages": MESSAGES}
            assert call(proxy.port, body=body).status == 504
            assert len(spare.requests) == 0
            again = call(proxy.port, body=body, headers={"x-penstock-safe-to-repeat": "true"})
            assert came_from(again) == ("b", "a", "down")


def test_who_wants_to_see_the_wait_sees_the_step_too() -> None:
    stream = EVENTS + b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'
    with providers(QUOTA, stream, close=True) as both:
        reply = both.ask(stream=True, headers={"x-penstock-progress": "sse"})

        assert (reply.status, *came_from(reply)) == (200, "b", "a", "quota")


def test_what_has_waited_as_long_as_it_may_goes_nowhere_else() -> None:
    classes = '[[classes]]\nname = "all"\nttl_s = 0.3\n'
    with providers(BROKEN, rules=rule("a", "b", ("down",)) + classes, answers=False) as both:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(both.ask)
            eventually(lambda: both.asked[0] == 1)
            time.sleep(0.4)
            both.main.go(100)
            reply = asked.result()

        assert (reply.status, both.asked[1]) == (500, 0)


def test_a_chain_is_told_in_order() -> None:
    rules = rule("a", "b1") + rule("b1", "b2")
    with providers(QUOTA, QUOTA, rules=rules) as both:
        reply = both.ask()

        assert reply.status == 429
        assert both.asked == (1, 2)  # quotas may be a model's: b1 and b2 are asked once each
        both.ask()
        assert both.asked == (1, 2)
    with providers(TOO_LONG, TOO_LONG, rules=rules) as both:
        reply = both.ask()

        assert came_from(reply) == ("b2", "a, b1", "context_length, context_length")
        assert (reply.status, both.asked) == (400, (1, 2))


def test_another_tier_is_another_leg() -> None:
    rules = '[[fallbacks]]\nmodel = "a"\nservice_tier = "flex"\nto_service_tier = "default"\n'
    with providers(TOO_LONG, rules=rules + 'when = ["context_length"]\n') as both:
        reply = both.ask(service_tier="flex")
        bodies = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in both.main.requests]

        assert [each["service_tier"] for each in bodies] == ["flex", "default"]
        assert reply.headers["x-penstock-served-tier"] == "default"
        assert reply.headers["x-penstock-fallback-from"] == "a;tier=flex"
        both.ask()
        assert len(both.main.requests) == 3


def test_nothing_is_translated_between_dialects() -> None:
    more = 'dialect = "anthropic"\n'
    with scripted([QUOTA]) as main, scripted([GOOD_REPLY]) as spare:
        main.go(9)
        toml = config(main.port, spare.port, rule("a", "b")).replace(
            'models = ["b*"]\n', f'models = ["b*"]\n{more}'
        )
        with sidecar(toml) as proxy:
            reply = call(proxy.port, body={"model": "a", "messages": MESSAGES})

        assert (reply.status, len(spare.requests)) == (429, 0)
