"""The mock as those use it who build on it: repeatable, told what to say, asked again by id."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from penstock.errors import ConfigError
from penstock.sim.mock.script import MockSettings, ScriptedReply, read_script
from penstock.sim.mock.server import MockServer
from tests.proxy.test_http import answer_of
from tests.sim.mock.world import QUICK, chat_body

ASK: Any = [{"role": "user", "content": "count to ten"}]
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture
async def gpt(quick: MockServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{quick.url}/v1", api_key="any", max_retries=0
    ) as found:
        yield found


@pytest.fixture
async def claude(quick: MockServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=quick.url, api_key="any", max_retries=0) as found:
        yield found


async def agent_loop(url: str) -> list[bytes]:
    """Ask with a tool, answer its call, and so on; return what came back, to the byte."""
    replies: list[bytes] = []
    messages: list[Any] = list(ASK)
    async with httpx2.AsyncClient(base_url=url) as http:
        for turn in range(3):
            body = chat_body(messages=messages, tools=[TOOL])
            headers = {"x-mock-output-tokens": "5"}
            answer = await http.post("/v1/chat/completions", json=body, headers=headers)
            replies.append(answer.content)
            message = answer.json()["choices"][0]["message"]
            messages.append(message)
            for call in message.get("tool_calls", []):
                result = {"role": "tool", "tool_call_id": call["id"], "content": f"turn {turn}"}
                messages.append(result)
    return replies


async def test_an_agent_loop_repeats_to_the_byte_under_a_seed() -> None:
    async with MockServer(MockSettings(QUICK, seed=7)) as first:
        once, again = await agent_loop(first.url), await agent_loop(first.url)
    async with MockServer(MockSettings(QUICK, seed=7)) as second:
        elsewhere = await agent_loop(second.url)
    async with MockServer(MockSettings(QUICK, seed=8)) as third:
        otherwise = await agent_loop(third.url)
    assert once == again == elsewhere
    assert once != otherwise
    assert len({json.loads(reply)["id"] for reply in once}) == 3


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_stream_repeats_to_the_byte_however_late_it_is_looked_at(path: str) -> None:
    replies = []
    for tick_s in (0.001, 0.2):
        async with (
            MockServer(MockSettings({**QUICK, "tokens_per_s": 2000.0}, tick_s=tick_s)) as mock,
            httpx2.AsyncClient(base_url=mock.url) as http,
        ):
            replies.append(
                (await http.post(path, json=chat_body(stream=True, max_tokens=40))).content
            )
    assert replies[0] == replies[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_header_says_what_to_answer_and_what_it_took(
    http: httpx2.AsyncClient, stream: bool
) -> None:
    headers = {
        "x-mock-content": json.dumps("It rains.\nStay in 😀"),
        "x-mock-usage": '{"prompt_tokens": 900, "output_tokens": 70, "cached_tokens": 800}',
    }
    options = {"include_usage": True}
    body = chat_body(stream=stream, **({"stream_options": options} if stream else {}))
    answer = await http.post("/v1/chat/completions", json=body, headers=headers)
    if stream:
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        events = [json.loads(line) for line in lines]
        deltas = [each["delta"].get("content") for e in events for each in e["choices"]]
        text, usage = "".join(filter(None, deltas)), events[-1]["usage"]
    else:
        text = answer.json()["choices"][0]["message"]["content"]
        usage = answer.json()["usage"]
    assert text == "It rains.\nStay in 😀"
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (900, 70)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 800


@pytest.mark.parametrize(
    "headers",
    [
        {"x-mock-content": '"half'},
        {"x-mock-usage": "7"},
        {"x-mock-usage": '{"tokens": 7}'},
        {"x-mock-usage": '{"output_tokens": -1}'},
    ],
)
async def test_a_header_that_cannot_be_is_400(
    http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await http.post("/v1/chat/completions", json=chat_body(), headers=headers)
    assert answer.status_code == 400
    assert next(iter(headers)) in answer.json()["error"]["message"]


SCRIPT = """
[[replies]]
contains = '"role":"tool"'
text = "It rains in Ulm."

[[replies]]
contains = "weather"
tool = "look"
arguments = { city = "Ulm" }
output_tokens = 40

[[replies]]
path = "/v1/messages"
model = "opus"
thinking = "I wonder."
text = "Well."

[[replies]]
contains = "trouble"
fault = "status:503"
"""


async def test_a_script_plays_an_agent(tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(SCRIPT)
    settings = MockSettings(QUICK, script=read_script(tmp_path / "script.toml"))
    async with MockServer(settings) as mock, httpx2.AsyncClient(base_url=mock.url) as http:

        async def said(path: str, **body: Any) -> httpx2.Response:
            return await http.post(path, json={"model": "m", "max_tokens": 2000, **body})

        chat = "/v1/chat/completions"
        messages: list[Any] = [{"role": "user", "content": "the weather?"}]
        first = (await said(chat, messages=messages, tools=[TOOL])).json()
        (call,) = first["choices"][0]["message"]["tool_calls"]
        assert call["function"] == {"name": "look", "arguments": '{"city":"Ulm"}'}
        assert first["usage"]["completion_tokens"] == 40
        messages += [first["choices"][0]["message"]]
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
        second = (await said(chat, messages=messages, tools=[TOOL])).json()
        assert second["choices"][0]["message"]["content"] == "It rains in Ulm."
        opus = (await said("/v1/messages", messages=ASK, model="opus")).json()
        assert [b.get("thinking") or b.get("text") for b in opus["content"]] == [
            "I wonder.",
            "Well.",
        ]
        assert opus["usage"]["output_tokens"] == 3
        trouble = [{"role": "user", "content": "trouble"}]
        assert (await said(chat, messages=trouble)).status_code == 503


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[replies]]\ncontain = 'x'", "did you mean contains"),
        ("[[replies]]\narguments = {}", "needs a tool"),
        ("[[replies]]\ntext = 'a'\ntool = 'b'", "no reply beside a tool"),
        ("[[replies]]\nfault = 'nonsense'", "must be one of reset"),
        ("[[replies]]\noutput_tokens = -1", "output_tokens"),
    ],
)
def test_a_script_that_cannot_be_is_refused_in_words(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_script(tmp_path / "s.toml")


def test_a_scripted_reply_fits_every_call_if_it_says_no_more() -> None:
    assert ScriptedReply(text="x").fits("/v1/anything", {})


async def test_a_response_is_had_again_by_its_id_until_it_is_deleted(
    gpt: openai.AsyncOpenAI,
) -> None:
    made = await gpt.responses.create(model="m", input="count to ten")
    again = await gpt.responses.retrieve(made.id)
    assert again.output_text == made.output_text
    items = await gpt.responses.input_items.list(made.id)
    assert len(items.data) == 1
    further = await gpt.responses.create(model="m", input="and on", previous_response_id=made.id)
    assert further.previous_response_id == made.id

    await gpt.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await gpt.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError, match="not found") as raised:
        await gpt.responses.create(model="m", input="and on", previous_response_id=made.id)
    assert raised.value.code == "previous_response_not_found"


async def test_what_is_not_stored_is_not_had_again(gpt: openai.AsyncOpenAI) -> None:
    made = await gpt.responses.create(model="m", input="a secret", store=False)
    with pytest.raises(openai.NotFoundError):
        await gpt.responses.retrieve(made.id)
    stored = await gpt.chat.completions.create(model="m", messages=ASK, store=True)
    assert (await gpt.chat.completions.retrieve(stored.id)).id == stored.id


async def test_log_probabilities_come_with_each_token(gpt: openai.AsyncOpenAI) -> None:
    words: dict[str, Any] = {"model": "m", "messages": ASK, "logprobs": True, "top_logprobs": 3}
    words["extra_headers"] = {"x-mock-output-tokens": "4"}
    whole = await gpt.chat.completions.create(**words)
    told = whole.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert "".join(each.token for each in told.content) == whole.choices[0].message.content
    assert all(len(each.top_logprobs) == 3 and each.logprob <= 0 for each in told.content)

    tokens: list[str] = []
    async for chunk in await gpt.chat.completions.create(stream=True, **words):
        for choice in chunk.choices:
            if choice.logprobs is not None and choice.logprobs.content:
                tokens += [each.token for each in choice.logprobs.content]
    assert tokens == [each.token for each in told.content]
    with pytest.raises(openai.BadRequestError):
        await gpt.chat.completions.create(model="m", messages=ASK, top_logprobs=3)


async def test_anthropics_tokens_are_counted_without_a_reply(
    claude: anthropic.AsyncAnthropic, quick: MockServer
) -> None:
    before = quick.stats()["finished"]
    counted = await claude.messages.count_tokens(model="m", messages=ASK, system="be brief")
    assert counted.input_tokens == 5
    assert quick.stats()["finished"] == before


async def test_anthropics_structured_output_fits_its_schema(
    http: httpx2.AsyncClient,
) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    asked = {"type": "json_schema", "schema": schema}
    for more in ({"output_config": {"format": asked}}, {"output_format": asked}):
        body = {"model": "m", "max_tokens": 2000, "messages": ASK, **more}
        answer = await http.post("/v1/messages", json=body)
        (block,) = answer.json()["content"]
        assert list(json.loads(block["text"])) == ["city"]


THINK: Any = {"type": "enabled", "budget_tokens": 1024}


async def test_thinking_goes_before_the_text(claude: anthropic.AsyncAnthropic) -> None:
    words: dict[str, Any] = {"model": "m", "max_tokens": 2000, "messages": ASK, "thinking": THINK}
    words["extra_headers"] = {"x-mock-output-tokens": "6"}
    whole = await claude.messages.create(**words)
    thought, text = whole.content
    assert thought.type == "thinking"
    assert thought.signature
    assert text.type == "text"
    assert whole.usage.output_tokens == 6 + len(thought.thinking.split())
    async with claude.messages.stream(**words) as stream:
        final = await stream.get_final_message()
    assert [block.model_dump(include={"type", "text", "thinking"}) for block in final.content] == [
        block.model_dump(include={"type", "text", "thinking"}) for block in whole.content
    ]
    assert final.usage.output_tokens == whole.usage.output_tokens


async def test_a_budget_above_the_cap_is_refused(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="budget_tokens"):
        await claude.messages.create(model="m", max_tokens=1024, messages=ASK, thinking=THINK)


@pytest.mark.parametrize("path", ["/health", "/healthz"])
async def test_health_asks_for_no_key(path: str) -> None:
    async with MockServer(MockSettings(QUICK, api_keys=("k",))) as mock:
        async with httpx2.AsyncClient(base_url=mock.url) as http:
            assert (await http.get(path)).json() == {"status": "ok"}


def test_an_upgrade_is_ignored_and_a_body_of_two_segments_is_one_call(quick: MockServer) -> None:
    """As the JDK's client sends it."""
    body = json.dumps(chat_body()).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", quick.port)) as sock:
        for _ in range(2):  # the connection stays one of HTTP/1.1
            sock.sendall(head.encode())
            sock.sendall(body)
            assert b"chat.completion" in answer_of(sock)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_mock_with_0(signum: int) -> None:
    words = [sys.executable, "-m", "penstock.cli.main", "mock", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as mock:
        assert mock.stdout is not None
        assert "listening on" in mock.stdout.readline()
        mock.send_signal(signum)
        _, said = mock.communicate(timeout=60)
    assert (mock.returncode, said) == (0, "")


async def test_a_file_is_kept_listed_read_and_deleted(gpt: openai.AsyncOpenAI) -> None:
    first = await gpt.files.create(file=("a.jsonl", b'{"a": 1}'), purpose="batch")
    again = await gpt.files.create(file=("a.jsonl", b'{"a": 1}'), purpose="batch")
    other = await gpt.files.create(file=("b.txt", b"text"), purpose="user_data")

    assert first == again
    assert (first.bytes, first.filename, first.purpose) == (8, "a.jsonl", "batch")
    assert [each.id async for each in gpt.files.list()] == [other.id, first.id]
    assert [each.id async for each in gpt.files.list(purpose="batch")] == [first.id]
    assert await gpt.files.retrieve(first.id) == first
    assert (await gpt.files.content(first.id)).content == b'{"a": 1}'
    assert (await gpt.files.delete(first.id)).deleted
    with pytest.raises(openai.NotFoundError, match=f"No such File object: {first.id}"):
        await gpt.files.retrieve(first.id)


async def test_a_form_without_a_file_and_files_of_the_other_vendor_are_refused(
    quick: MockServer,
) -> None:
    async with httpx2.AsyncClient(base_url=quick.url) as http:
        form = {"purpose": (None, b"batch")}
        answer = await http.post("/v1/files", files=form)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "Missing required parameter: 'file'."
        other = await http.get("/v1/files", headers={"anthropic-version": "2023-06-01"})
        assert other.json()["error"]["type"] == "not_found_error"
