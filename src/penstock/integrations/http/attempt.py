"""What an attempt's answer or error means, in words that async and sync transports share."""

import ssl
import time
from functools import lru_cache
from typing import Any

from penstock.errors import Refused
from penstock.integrations.http.plan import Plan
from penstock.integrations.http.prefix import Prefix
from penstock.runtime.slot import Hold
from penstock.wire.encoding import (
    PLAIN_MAX_BYTES,
    can_read,
    is_misnamed,
    plain,
    plain_unless_large,
)
from penstock.wire.errors import MAX_RETRY_AFTER_S, error_answer
from penstock.wire.limits import limits_of
from penstock.wire.refusal import (
    BROKEN,
    RELAY,
    Backoff,
    Meaning,
    Relay,
    is_spent,
    meaning_of,
)
from penstock.wire.verdict import (
    Verdict,
    verdict_of_reply,
)
from penstock.wire.waits import retry_after_s
from penstock.wire.words import words_of_refusal

_BODY = "penstock_body"
MISDIRECTED = "penstock_misdirected"
"""The extension of an answer that says how it looks as if the base URL led elsewhere."""


def from_memory(library: Any, response: Any) -> None:
    """Let a body be read once more that the inner transport has read, for a log say."""
    if not response.is_closed or isinstance(response.stream, library.ByteStream):
        return
    content = b"" if not response.is_stream_consumed else response.content
    response.stream = library.ByteStream(content)
    response.headers.pop("content-encoding", None)  # it is undone
    response.headers["content-length"] = str(len(content))


def with_body(library: Any, response: Any, body: bytes, prefix: Prefix) -> Any:
    """Return the same answer with its body (as it came over the wire) at hand."""
    headers = response.headers
    if prefix.encoding and is_misnamed(body, prefix.encoding):
        del headers["content-encoding"]
        prefix.encoding = ""
    again = library.Response(
        response.status_code,
        headers=headers,  # its own class is copied as it is; pairs are looked at one by one
        stream=library.ByteStream(body),
        extensions={**response.extensions, _BODY: body},
    )
    again.headers.encoding = headers.encoding  # else found anew: all are decoded for it
    return again


def judge(
    library: Any, plan: Plan, response: Any, slot: Hold, prefix: Prefix
) -> tuple[Any, Meaning]:
    """Return the answer that `with_body` made, as the caller is to see it, and what it means.

    A reply that holds what its endpoint returns ends the slot. One that does not is no longer a
    success, nor a redirect that the caller's client would follow with its key.
    """
    encoding = prefix.encoding
    sent = response.extensions.pop(_BODY)
    status: int = response.status_code
    guard = plan.outlet.driver.guard
    if status >= 400:
        otherwise: Meaning = BROKEN if status >= 500 else RELAY
        meaning = guard.run(
            "refusal",
            lambda: meaning_of(
                status, response.headers, plain(sent, encoding), wall_now=time.time()
            ),
            otherwise,
        )
        if isinstance(meaning, Backoff):
            words = guard.run("refusal", lambda: words_of_refusal(plain(sent, encoding)), "")
            slot.refused_with(words)
        return response, meaning
    if prefix.tap is not None:
        fault = prefix.fault
        if fault is None:
            return response, RELAY  # whoever follows the reply ends the slot
        return _refused(library, plan, response, sent, fault), fault.meaning
    text = None
    if len(sent) <= PLAIN_MAX_BYTES:
        if not encoding:
            text = sent
        elif can_read(encoding):
            text = guard.run("reply", lambda: plain_unless_large(sent, encoding), None)
    if text is None:
        slot.settle()
        return response, RELAY
    verdict = guard.run(
        "reply",
        lambda: verdict_of_reply(plan.endpoint.kind, status, text),
        Verdict(RELAY, status=status),
    )
    if verdict.good:
        slot.settle(verdict.usage)
        return response, RELAY
    refused = _refused(library, plan, response, sent, verdict)
    if verdict.misdirected:  # whoever answers there will not become the API
        slot.fail(upstream_fault=True)
        refused.extensions[MISDIRECTED] = verdict.fault
        return refused, Relay(for_good=True)
    return refused, verdict.meaning


def _refused(library: Any, plan: Plan, response: Any, sent: bytes, verdict: Verdict) -> Any:
    """Return an error in place of an answer that is none: the provider's, or else ours."""
    if verdict.has_error:
        headers, content = response.headers.raw, sent
    else:
        answer = error_answer(plan.endpoint.vendor, verdict.status, "upstream_broken", verdict.told)
        headers, content = list(answer.headers.items()), answer.body
    return library.Response(
        verdict.status,
        headers=headers,
        stream=library.ByteStream(content),
        extensions=response.extensions,
    )


def reopen(response: Any) -> None:
    """Let a caller read an answer as it came, though we have read it already.

    The library takes a body that is at hand for read, and refuses its raw bytes to whoever streams.
    """
    response.is_stream_consumed = response.is_closed = False


def pass_trace_on(request: Any, slot: Hold) -> None:
    """Let the provider's spans, if it makes any, join the caller's trace."""
    url = request.url
    port = url.port or (443 if url.scheme == "https" else 80)
    for name, value in slot.trace_headers(url.host, port).items():
        request.headers[name] = value


def note_limits(plan: Plan, response: Any) -> None:
    """Tell the scheduler what limits the answer's headers state, if any."""
    stated = _stated(response.headers.raw)
    if not stated:
        return
    seen = plan.outlet.driver.guard.run(
        "limits",
        lambda: limits_of(plan.outlet.name, stated, model=plan.spec.model, wall_now=time.time()),
        None,
    )
    if seen is not None:
        seen.account = plan.spec.account
        plan.outlet.driver.tell(seen)


def _stated(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that `limits_of` looks at; none if no limit is among them.

    The libraries' own look-ups search their list anew for each name, 2 us a time.
    """
    found: dict[str, str] = {}
    for raw_name, value in raw:
        name = _name_of_limit(raw_name)
        if name and name not in found:
            found[name] = value.decode("latin-1")
    return found if any("ratelimit" in name for name in found) else {}


@lru_cache(maxsize=1024)  # the same twenty names come with every answer
def _name_of_limit(raw_name: bytes) -> str:
    """Return a header's name as `limits_of` knows it; empty if it does not look at it."""
    name = raw_name.lower().decode("latin-1")
    wanted = "ratelimit" in name or name == "date" or name.startswith("x-groq-")
    return name if wanted else ""


class ConnectionTrace:
    """Follows on which connection an attempt goes, by the libraries' documented "trace" extension.

    Args:
        request: whose own follower, if it has one, is told as well.

    """

    def __init__(self, request: Any) -> None:
        """Nothing is known yet."""
        self.told = request.extensions.get("trace")
        self._dialled = self._sent = self._answered = False

    @property
    def reused(self) -> bool:
        """Whether it went on a connection that had served others, and no answer began."""
        return self._sent and not self._dialled and not self._answered

    def note(self, event: str) -> None:
        """Take in what happens."""
        if event.startswith("connection.connect_"):
            self._dialled = True
        elif event == "http11.send_request_headers.started":
            self._sent = True
        elif event == "http11.receive_response_headers.complete":
            self._answered = True


def may_try_again(library: Any, error: Exception) -> bool:
    """Return whether a transport's error may be answered by another attempt.

    The caller's own timeouts are the caller's to see. A connection that could not be made, or
    that broke before the first byte of the answer, is what the SDKs would try again too. A
    certificate that is not trusted will not be trusted a second later.
    """
    if _is_distrust(error):
        return False
    broken = (library.ConnectError, library.ReadError, library.WriteError,
              library.RemoteProtocolError)  # fmt: skip
    return isinstance(error, broken)


def _is_distrust(error: BaseException | None) -> bool:
    while error is not None:  # the libraries wrap what ssl says, twice
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_upstreams_fault(library: Any, error: BaseException) -> bool:
    """Return whether an error speaks against the upstream; a full pool of our own does not."""
    return isinstance(error, library.TransportError) and not isinstance(
        error, library.PoolTimeout | library.UnsupportedProtocol | library.LocalProtocolError
    )


def mark(response: Any, plan: Plan, slot: Hold) -> None:
    """Put the request's id, its waiting time and what was ignored into the answer's headers."""
    if plan.said:
        response.headers.update(plan.said)
    response.headers["x-penstock-id"] = slot.id
    response.headers["x-penstock-queue-ms"] = f"{slot.queued_s * 1000:.0f}"


def give_up(response: Any, meaning: Meaning) -> None:
    """Tell the SDK not to try again what the provider will never take."""
    if isinstance(meaning, Relay) and meaning.for_good:
        response.headers["x-should-retry"] = "false"


def stands(plan: Plan, response: Any, meaning: Meaning, refused: Refused) -> None:
    """Tell the SDK not to try again what is of no use: now, or for hours or days."""
    wait_s = plan.outlet.driver.guard.run(
        "refusal", lambda: retry_after_s(response.headers, wall_now=time.time()), None
    )
    never = is_spent(meaning) or refused.retry_after_s is None
    if never or (wait_s is not None and wait_s > MAX_RETRY_AFTER_S):
        response.headers["x-should-retry"] = "false"
