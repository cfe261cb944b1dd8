"""A batch over HTTP in trouble: no line is written off that the provider would still take."""

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from tests.batch.files import batch_file, ids_in, lines_in, request
from tests.batch.http import REPLY, good, line_of, refusal, work

TOO_LARGE = "Request too large for gpt-5 in organization o on tokens per min (TPM): Limit 10, \
Requested 20. The input or output tokens must be reduced in order to run successfully."


def test_a_wait_of_450_seconds_writes_no_line_off(tmp_path: Path) -> None:
    async def provider(_request: httpx2.Request) -> httpx2.Response:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        if now < 450:
            return refusal(429, "Rate limit reached.", retry_after=f"{450 - now:.3f}")
        return good()

    batch, took_s = work(batch_file(tmp_path, 300), provider)
    assert sorted(ids_in(tmp_path / "out.jsonl")) == sorted(f"r{n}" for n in range(300))
    assert lines_in(tmp_path / "errors.jsonl") == []
    assert (batch.halted, batch.set_aside) == ("", 0)
    assert 450 <= took_s < 600


def test_lines_that_can_never_pass_fail_alone_and_at_once(tmp_path: Path) -> None:
    lines = [request(n, poison=n % 40 == 7) for n in range(400)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sent_poison = 0

    async def provider(request: httpx2.Request) -> httpx2.Response:
        nonlocal sent_poison
        await asyncio.sleep(0.1)
        if line_of(request)["poison"]:
            sent_poison += 1
            return refusal(429, TOO_LARGE)
        return good()

    batch, took_s = work(source, provider)
    assert len(ids_in(tmp_path / "out.jsonl")) == 390
    assert len(ids_in(tmp_path / "errors.jsonl")) == 10
    assert sent_poison == 10
    assert batch.halted == ""
    assert took_s < 60


def test_minutes_of_overload_end_no_line(tmp_path: Path) -> None:
    async def provider(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.1)
        up = asyncio.get_running_loop().time() > 300
        return good() if up else refusal(503, "no room")

    batch, took_s = work(batch_file(tmp_path, 100), provider)
    assert len(ids_in(tmp_path / "out.jsonl")) == 100
    assert batch.halted == ""
    assert took_s < 420


@pytest.mark.parametrize(
    "page", [httpx2.Response(200, text="<html>sorry"), httpx2.Response(404, text="<html>")]
)
def test_a_page_among_answers_ends_no_run(tmp_path: Path, page: httpx2.Response) -> None:
    asked = 0

    async def provider(_request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        number = asked  # of this call: others come while it waits
        await asyncio.sleep(0.1)
        return page if number % 10 == 1 else good()

    batch, _ = work(batch_file(tmp_path, 200), provider)
    assert batch.halted == ""
    assert len(ids_in(tmp_path / "out.jsonl")) == 200


def test_pages_and_nothing_else_end_a_run_in_seconds(tmp_path: Path) -> None:
    async def provider(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text="<html>sorry")

    batch, took_s = work(batch_file(tmp_path, 200), provider)
    assert "the base URL answers with a web page: does it lead to" in batch.halted
    assert took_s <= 2.0


def test_a_provider_that_refuses_everything_ends_the_run_in_its_words(tmp_path: Path) -> None:
    async def provider(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.1)
        return refusal(429, "Rate limit reached.")

    batch, took_s = work(batch_file(tmp_path, 20), provider)
    assert batch.halted.startswith("no line was done for 10 minutes (HTTP 429: Rate limit reached")
    assert ids_in(tmp_path / "out.jsonl") + ids_in(tmp_path / "errors.jsonl") == []
    assert took_s < 700


def test_a_port_where_nobody_listens_is_given_up_within_a_minute(tmp_path: Path) -> None:
    async def provider(request: httpx2.Request) -> httpx2.Response:
        await request.extensions["trace"]("connection.connect_tcp.failed", {})
        raise httpx2.ConnectError("refused", request=request)

    batch, took_s = work(batch_file(tmp_path, 200), provider)
    assert batch.halted == "the provider cannot be reached (no connection for 60 s): is it up?"
    assert took_s < 65
    assert ids_in(tmp_path / "errors.jsonl") == []


def test_what_is_no_reply_is_no_result(tmp_path: Path) -> None:
    asked = 0
    nonsense = [
        httpx2.Response(200, content=b""),
        httpx2.Response(200, json={"error": {"message": "it broke", "code": 502}}),
        httpx2.Response(200, content=b'{"choices": [{"mess'),
        httpx2.Response(
            200, stream=httpx2.ByteStream(b"zzz"), headers={"content-encoding": "gzip"}
        ),
        httpx2.Response(530, content=b"<html>"),
        httpx2.Response(204),
    ]

    async def provider(_request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        return nonsense[asked - 1] if asked <= len(nonsense) else good()

    batch, _ = work(batch_file(tmp_path, 12), provider)
    replies = [line["response"]["body"] for line in lines_in(tmp_path / "out.jsonl")]
    assert len(replies) == 12 - batch.set_aside
    assert all(reply["choices"] for reply in replies)
    assert lines_in(tmp_path / "errors.jsonl") == []
    assert batch.set_aside == 0


def test_stated_limits_on_input_tokens_are_kept(tmp_path: Path) -> None:
    """The input is reserved: 100 lines of 1,000 tokens do not go at once against 30,000."""
    words = "water " * 1000
    lines = [request(n, messages=[{"role": "user", "content": words}]) for n in range(100)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    left, seen_at, refusals = 30_000.0, 0.0, 0

    async def provider(_request: httpx2.Request) -> httpx2.Response:
        nonlocal left, seen_at, refusals
        now = asyncio.get_running_loop().time()
        left, seen_at = min(30_000.0, left + (now - seen_at) * 500.0), now
        if left < 1000:
            refusals += 1
            return refusal(429, "Too many input tokens.", retry_after="2")
        left -= 1000
        stated = {
            "anthropic-ratelimit-input-tokens-limit": "30000",
            "anthropic-ratelimit-input-tokens-remaining": f"{left:.0f}",
            "anthropic-ratelimit-input-tokens-reset": f"{(30_000 - left) / 500:.0f}s",
        }
        await asyncio.sleep(0.5)
        usage = {"prompt_tokens": 1000, "completion_tokens": 7}
        return httpx2.Response(200, json={**REPLY, "usage": usage}, headers=stated)

    batch, took_s = work(source, provider, ahead=100)
    assert len(ids_in(tmp_path / "out.jsonl")) == 100
    assert batch.halted == ""
    assert refusals <= 10  # those that were under way before the first reply stated the limit
    assert took_s < 300


def test_what_is_nested_deeply_is_sent_and_its_reply_kept(tmp_path: Path) -> None:
    nested = json.loads("[" * 600 + "]" * 600)
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(request(0, metadata=nested)) + "\n")

    async def provider(request: httpx2.Request) -> httpx2.Response:
        assert line_of(request)["metadata"] == nested
        return httpx2.Response(200, json={**REPLY, "extra": nested})

    work(source, provider)
    (line,) = lines_in(tmp_path / "out.jsonl")
    assert line["response"]["body"]["extra"] == nested


def test_what_is_nested_deeper_than_parsers_go_is_kept_as_a_text(tmp_path: Path) -> None:
    text = json.dumps({**REPLY, "extra": None}).replace("null", "[" * 3000 + "]" * 3000)

    async def provider(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=text)

    work(batch_file(tmp_path, 1), provider)
    (line,) = lines_in(tmp_path / "out.jsonl")
    assert line["response"]["body"] == text


@pytest.mark.parametrize("coding", ["none", "utf-8", "gzip"])
def test_plain_json_is_a_result_whatever_coding_its_header_names(
    tmp_path: Path, coding: str
) -> None:
    async def provider(_request: httpx2.Request) -> httpx2.Response:
        stream = httpx2.ByteStream(json.dumps(REPLY).encode())
        return httpx2.Response(200, headers={"content-encoding": coding}, stream=stream)

    work(batch_file(tmp_path, 1), provider)
    (line,) = lines_in(tmp_path / "out.jsonl")
    assert line["response"]["body"] == REPLY


def test_a_coding_that_nobody_here_knows_is_asked_for_once(tmp_path: Path) -> None:
    asked = 0

    async def provider(_request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        stream = httpx2.ByteStream(b"\xff\x06\x00\x00sNaPpY")
        return httpx2.Response(200, headers={"content-encoding": "snappy"}, stream=stream)

    batch, _ = work(batch_file(tmp_path, 1), provider)
    assert asked == 1
    assert "'snappy' is not taken" in batch.halted
