"""JSON comes back as it was read, whatever JavaScript made of it."""

import pytest

from penstock.wire import jsonio
from penstock.wire.endpoint import Kind
from penstock.wire.verdict import verdict_of_reply


def test_half_an_emoji_is_written_as_it_was_read() -> None:
    text = b'{"a":"ha \\ud83d","b":["\xc3\xa9\xf0\x9f\x98\x80"]}'
    assert jsonio.dumps(jsonio.loads(text)) == text


def test_whatever_depth_is_read_is_written() -> None:
    inner = b'["{,",null,1.5,[],{},true,"ha \\ud83d",{"b":[1,2],"c":{}}]'
    text = (
        b'{"a":[' * 500 + b'{"a":"\xc3\xa9","x":%b}' % inner.replace(b" \\ud83d", b"") + b"]}" * 500
    )
    assert jsonio.dumps(jsonio.loads(text)) == text


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1" + "0" * 5000, "1e400"])
def test_a_number_beyond_a_float_makes_no_reply_unreadable(number: str) -> None:
    body = b'{"choices":[{"message":{}}],"usage":{"completion_tokens":%b}}' % number.encode()
    verdict = verdict_of_reply(Kind.CHAT, 200, body)

    assert verdict.good
    assert verdict.usage.output_tokens is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_pythons_clients_read_is_a_reply_whatever_it_begins_with(encoding: str) -> None:
    text = '{"choices":[{"message":{"content":"é"}}],"usage":{"completion_tokens":7}}'
    verdict = verdict_of_reply(Kind.CHAT, 200, text.encode(encoding))

    assert verdict.good
    assert verdict.usage.output_tokens == 7


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_a_number_that_only_python_writes_makes_no_reply_unreadable(number: str) -> None:
    logprob = b'"logprobs":{"content":[{"logprob":%b}]}' % number.encode()
    usage = b'"usage":{"prompt_tokens":%b,"completion_tokens":7}' % number.encode()
    body = b'{"choices":[{"message":{},%b}],%b}' % (logprob, usage)
    verdict = verdict_of_reply(Kind.CHAT, 200, body)

    assert verdict.good
    assert (verdict.usage.prompt_tokens, verdict.usage.output_tokens) == (None, 7)
    assert not verdict_of_reply(Kind.CHAT, 200, body[:-1]).good


def test_bytes_that_are_no_utf_8_make_no_reply_unreadable() -> None:
    body = b'{"choices":[{"message":{"content":"caf\xe9"}}],"usage":{"completion_tokens":7}}'

    assert verdict_of_reply(Kind.CHAT, 200, body).usage.output_tokens == 7
    assert not verdict_of_reply(Kind.CHAT, 200, body[:-1]).good
