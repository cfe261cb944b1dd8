"""What reads foreign bytes, one function a door: it raises nothing but what it documents.

Each takes any bytes. A seed shows a fuzzer what the bytes look like; seeds that once failed stay.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields

from penstock.asgi import Receive, Scope, Send
from penstock.batch.lines import BatchError, parse_line
from penstock.batch.reply import reply_of
from penstock.calls.endpoint import CHAT, ENDPOINTS
from penstock.calls.factory import RequestFactory, spec_of_call
from penstock.calls.facts import facts_of, may_refer, references_of
from penstock.calls.form import FormError, form_of
from penstock.calls.hints import NO_HINTS, HintError, hints_of
from penstock.core.bounds import LARGEST_COUNT, EventCheck
from penstock.core.events import Arrived
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.errors import ConfigError
from penstock.listener import Bounds, Listener, bind
from penstock.log.reader import LogError, parse_log
from penstock.proxy.config import loads
from penstock.wire import jsonio
from penstock.wire.encoding import READABLE
from penstock.wire.endpoint import Kind
from penstock.wire.limits import limits_of
from penstock.wire.refusal import meaning_of
from penstock.wire.usage_tap import UsageTap, usage_tap
from penstock.wire.verdict import verdict_of_reply

NOW = 1_700_000_000.0
FACTORY = RequestFactory((TrafficClass("all", estimate=TokenEstimate(1e6, 1e6)),), run="fuzz")
KINDS = list(Kind)
CODINGS = ["", *sorted(READABLE)]


@dataclass(frozen=True)
class Target:
    """A reader and what its bytes look like.

    Attributes:
        read: takes any bytes.
        seeds: good ones, and those that once failed.

    """

    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def headers_in(data: bytes) -> list[tuple[bytes, bytes]]:
    lines = (line.partition(b":") for line in data.splitlines())
    return [(name.strip().lower(), value.strip()) for name, _, value in lines if name]


def state(tap: UsageTap) -> object:
    return tap.usage(), tap.started, tap.finished, tap.heard, tap.whole, tap.error


def stream(data: bytes) -> None:
    """The first three bytes choose the endpoint, the coding and where the rest is cut."""
    if len(data) < 4:
        return
    kind, coding = KINDS[data[0] % len(KINDS)], CODINGS[data[1] % len(CODINGS)]
    step, data = 1 + data[2], data[3:]
    whole, cut = (usage_tap(kind, coding, is_stream=True) for _ in range(2))
    whole.feed(data)
    for start in range(0, len(data), step):
        cut.feed(data[start : start + step])
    if not coding:  # where a packed one breaks, more or less of it may have been read
        assert state(whole) == state(cut), (state(whole), state(cut))
    usage = cut.usage()
    for count in (usage.output_tokens, usage.prompt_tokens, usage.cached_tokens):
        assert count is None or 0 <= count <= 3 * LARGEST_COUNT, usage
    if cut.error is not None:
        meaning_of(500, {}, jsonio.dumps(cut.error), wall_now=NOW)


def reply(data: bytes) -> None:
    """The first byte chooses the endpoint."""
    kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    verdict = verdict_of_reply(kind, 200, data[1:])
    assert verdict.usage.output_tokens != -1
    meaning_of(429, {}, data[1:], wall_now=NOW)


def headers(data: bytes) -> None:
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers_in(data)}
    limits = limits_of("x", found, wall_now=NOW)
    if limits is not None:
        checked = EventCheck().checked(limits, 0.0, 0.0)
        for field in fields(checked):
            value = getattr(checked, field.name)
            assert not isinstance(value, float) or (math.isfinite(value) and value >= 0), field.name
    meaning_of(429, found, wall_now=NOW)
    with suppress(HintError):
        hints = hints_of(headers_in(data))
        assert hints.deadline_s is None or 0 < hints.deadline_s < math.inf


def body(data: bytes) -> None:
    """The first byte chooses the endpoint; what is no JSON is read as a form."""
    if not data:
        return
    endpoint, data = ENDPOINTS[data[0] % len(ENDPOINTS)], data[1:]
    parsed = jsonio.loads_object(data)
    if parsed is None:
        try:
            parsed = form_of("multipart/form-data; boundary=b", data)
        except FormError:
            return
    facts = facts_of(endpoint, parsed)
    assert facts.replies >= 1
    assert facts.max_tokens is None or facts.max_tokens >= 0
    request, _ = FACTORY.request(spec_of_call(endpoint, parsed, facts, NO_HINTS), now=0.0)
    EventCheck().checked(Arrived(request), 0.0, 0.0)
    if may_refer(data):
        references_of(parsed)
    if jsonio.loads_object(data) is not None:
        assert jsonio.loads_object(jsonio.dumps(parsed)) == parsed or b"E" in data.upper()


def decision_log(data: bytes) -> None:
    with suppress(LogError):
        for _ in parse_log(data):
            pass


def configuration(data: bytes) -> None:
    with suppress(ConfigError):
        loads(data.decode(errors="replace"), env={"OPENAI_API_KEY": "k"})


def batch(data: bytes) -> None:
    """A line, and the same bytes as a provider's answer to a good one."""
    with suppress(BatchError):
        parse_line(1, data)
    good = parse_line(1, b'{"custom_id":"a","url":"%b","body":{}}' % CHAT.path.encode())
    for status in (200, 400, 429):
        reply_of(good, status, {}, data, None, wall_now=NOW)


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    size, more = 0, True
    try:
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
    except ValueError:
        size = 0
    head = [(b"content-length", b"%d" % len(b"%d" % size))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"%d" % size})


class Http:
    """A listener that is given the bytes of a connection; the first byte says where it is cut."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._faults: list[object] = []
        self._port = 0

    def __call__(self, data: bytes) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_exception_handler(lambda _, context: self._faults.append(context))
            self._loop.run_until_complete(self._start())
        answer = self._loop.run_until_complete(asyncio.wait_for(self._play(data), 20.0))
        assert not self._faults, self._faults
        assert not answer or answer.startswith((b"HTTP/1.", b"HTTP/0.9 400 ")), answer[:100]
        assert b" 500 " not in answer.partition(b"\r\n")[0], answer[:100]

    async def _start(self) -> None:
        sock = bind("127.0.0.1", 0)
        self._port = sock.getsockname()[1]
        self._listener = Listener(_echo, sock, Bounds(head_bytes=2048))
        await self._listener.start()

    async def _play(self, data: bytes) -> bytes:
        cut = 1 + data[0] * 4 if data else 1
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(data[1 : 1 + cut])
        await asyncio.sleep(0)
        writer.write(data[1 + cut :])
        answer = b""
        with suppress(ConnectionError):
            await asyncio.sleep(0.001)
            writer.write_eof()
            answer = await reader.read()
        writer.close()
        return answer


LIMITS = (
    b"x-ratelimit-limit-requests: 60\nx-ratelimit-remaining-tokens: 9\n"
    b"x-ratelimit-reset-tokens: 6m0s"
)
RATELIMIT = b'ratelimit: "a";r=5;t=1\nratelimit-policy: "a";q=10;w=60\nretry-after: 3\ndate: x'
HINTS = b"x-penstock-deadline-ms: 500\nx-penstock-tokens: 40,90\nx-penstock-session: abc"
ANTHROPIC = (
    b"anthropic-ratelimit-tokens-limit: 100\nanthropic-ratelimit-tokens-remaining: 50\n"
    b"anthropic-ratelimit-tokens-reset: 2023-11-14T22:13:30Z"
)
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\r\n\r\n'
    b"data: [DONE]\n\n"
)
MESSAGES = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n'
    b'data: {"type":"message_delta","delta":{"stop_reason":"x"},"usage":{"output_tokens":5}}\n\n'
    b'data: {"type":"message_stop"}\n\n'
)
RESPONSES = (
    b'data: {"type":"response.output_text.delta","delta":"a"}\n\n'
    b'data: {"type":"response.completed",'
    b'"response":{"usage":{"input_tokens":1,"output_tokens":2}}}\n\n'
)
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n"
CONFIG = (
    b'[server]\nport = 0\n[[upstreams]]\nname = "a"\nbase_url = "http://h/v1"\nmodels = ["*"]\n'
)
CLASSES = (
    b'[[classes]]\nname = "i"\nweight = 4.0\ndeadline_s = 2.5\n'
    b'[[keys]]\nkey_env = "K"\nname = "n"\n'
)
HEADER = b'{"format":"penstock-decisions","version":1,"run":"a","settings":null}\n'
CHAT_BODY = (
    b'{"model":"m","n":2,"max_tokens":9,"messages":[{"role":"user","content":"hi \\ud83d"}]}'
)
FORM = b'--b\r\ncontent-disposition: form-data; name="n"\r\n\r\n2\r\n--b--\r\n'

TARGETS = {
    "http": Target(
        Http(),
        (
            b"\xff" + POST + b"content-length: 3\r\n\r\nabc",
            b"\x05" + CHUNKED,
            b"\xffPOST /v1/c\r\nhost: a\r\n\r\nabc",  # HTTP/0.9
        ),
    ),
    "body": Target(body, (b"\0" + CHAT_BODY, b"\6" + FORM, b'\2{"previous_response_id":"resp_1"}')),
    "stream": Target(
        stream,
        (
            b"\0\0\5" + DELTA + USAGE,
            bytes([KINDS.index(Kind.MESSAGES), 0, 7]) + MESSAGES,
            bytes([KINDS.index(Kind.RESPONSES), 0, 99]) + RESPONSES,
            b"\0\2\5" + b"\x1f\x8b\x08",
        ),
    ),
    "reply": Target(reply, (b'\0{"choices":[{"message":{"content":"a"}}],"usage":{}}', b"\0[]")),
    "headers": Target(headers, (LIMITS, RATELIMIT, HINTS, ANTHROPIC)),
    "log": Target(decision_log, (HEADER,)),
    "configuration": Target(configuration, (CONFIG, CONFIG + CLASSES)),
    "batch": Target(
        batch,
        (
            b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{}}\n',
            b'{"error":{"code":"insufficient_quota","message":"try again in 3s"}}',
        ),
    ),
}
