"""A batch is worked off: failures are tried again, deadlines kept, every end written."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.batch.checkpoint import Checkpoint
from penstock.batch.lines import BatchError, BatchLine, inspect
from penstock.batch.reply import BatchReply, Standing, reply_of
from penstock.batch.runner import Batch
from penstock.cli.group import group
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.batch.files import batch_file, checkpoint_of, ids_in, lines_in, request
from tests.listening import serving_http
from tests.virtual_loop import run_virtual

CHAT = {
    "choices": [{"message": {"role": "assistant", "content": "ok"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 5},
}


@dataclass(frozen=True)
class Http:
    """An answer as it comes over the wire."""

    status: int
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)

    def reply(self, line: BatchLine) -> BatchReply:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        headers = {"x-request-id": "q", **self.headers}
        return reply_of(line, self.status, headers, text.encode(), None, wall_now=0.0)


def error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "t", "code": code}}


OK = Http(200, CHAT)
BROKE = BatchReply(0, standing=Standing.BROKEN, why="ReadError: reset")
NOBODY = BatchReply(0, standing=Standing.BROKEN, why="ConnectError: refused", away=True)


class Provider:
    """Answers by a function of (line number, how often it was sent)."""

    def __init__(self, answer: Callable[[int, int], BatchReply | Http], takes_s: float = 1.0):
        self.answer = answer
        self.takes_s = takes_s
        self.sent: list[int] = []
        self.flying = 0
        self.most = 0

    async def __call__(self, line: BatchLine, *, deadline_s: float | None) -> BatchReply:
        self.sent.append(line.number)
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.flying -= 1
        answer = self.answer(line.number, self.sent.count(line.number))
        return answer.reply(line) if isinstance(answer, Http) else answer


def work(
    source: Path,
    provider: Provider,
    *,
    ahead: int = 3,
    ahead_bytes: int = 1 << 20,
    deadline_at: float | None = None,
    stop_at: float | None = None,
) -> Checkpoint:
    async def main() -> Checkpoint:
        with checkpoint_of(source) as store:
            batch = Batch(
                source,
                store,
                provider,
                ahead=ahead,
                ahead_bytes=ahead_bytes,
                deadline_at=deadline_at,
                chance=random.Random(1),
            )
            if stop_at is not None:
                asyncio.get_running_loop().call_at(stop_at, batch.stop)
            await batch.run()
            return store

    return run_virtual(main())


def test_trouble_is_told_while_a_line_is_tried_again(tmp_path: Path) -> None:
    first: list[BatchReply | Http] = [NOBODY, Http(503), OK]
    source = batch_file(tmp_path, 1)
    told: list[tuple[str, float]] = []

    async def main() -> None:
        with checkpoint_of(source) as store:
            provider = Provider(lambda _line, nth: first[nth - 1])
            trouble = lambda why, wait_s: told.append((why, wait_s))  # noqa: E731
            await Batch(source, store, provider, on_trouble=trouble).run()

    run_virtual(main())
    assert [why for why, _ in told] == ["ConnectError: refused", "HTTP 503"]
    assert all(wait_s >= 0 for _, wait_s in told)


def test_the_checkpoints_folder_is_made_or_its_lack_explained(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 1)
    out = tmp_path / "new" / "out.jsonl"
    with Checkpoint(
        tmp_path / "new" / "c", out, tmp_path / "e.jsonl", inspect(source), now_unix_s=0.0
    ):
        assert out.exists()
    with pytest.raises(BatchError, match=r"in\.jsonl/c cannot be made .*its folder"):
        Checkpoint(source / "c", out, tmp_path / "e2.jsonl", inspect(source), now_unix_s=0.0)
    tmp_path.chmod(0o777)
    with pytest.raises(BatchError, match=rf"mode 0777.*chmod o-w {tmp_path}"):
        Checkpoint(tmp_path / "c2", out, tmp_path / "e.jsonl", inspect(source), now_unix_s=0.0)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8333",
        "localhost:8333/v1",
        "http://",
        "ftp://h/v1",
        "http://h:x/v1",
        "http://[::1",
    ],
)
def test_a_base_url_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path, url: str
) -> None:
    source = batch_file(tmp_path, 1)
    words = ["batch", str(source), "--out", str(tmp_path / "out.jsonl"), "--base-url", url]
    result = CliRunner().invoke(group, words)
    assert result.exit_code == 1
    assert f"base URL '{url}': must be an http:// or https:// URL" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_base_url_that_is_an_endpoints_is_refused_before_its_lines_fail_for_good(
    tmp_path: Path,
) -> None:
    url = "http://127.0.0.1:9/v1/chat/completions/"
    words = ["batch", str(batch_file(tmp_path, 1)), "--out", str(tmp_path / "out"), "--base-url"]
    result = CliRunner().invoke(group, [*words, url])
    assert result.exit_code == 1
    assert "which is added to it: did you mean http://127.0.0.1:9/v1?" in result.output


def test_every_line_is_answered_and_so_many_fly(tmp_path: Path) -> None:
    provider = Provider(lambda _line, _try: OK)
    store = work(batch_file(tmp_path, 10), provider)
    assert sorted(ids_in(tmp_path / "out.jsonl")) == sorted(f"r{n}" for n in range(10))
    assert provider.most == 3
    assert (store.totals.succeeded, store.totals.output_tokens) == (10, 50)
    answer = lines_in(tmp_path / "out.jsonl")[0]
    assert answer["response"] == {"status_code": 200, "request_id": "q", "body": CHAT}
    assert answer["error"] is None


def test_lines_in_hand_are_bounded_in_bytes_too(tmp_path: Path) -> None:
    provider = Provider(lambda _line, _try: OK)
    source = batch_file(tmp_path, 20)
    longest = max(map(len, source.read_bytes().splitlines()))
    assert work(source, provider, ahead=8, ahead_bytes=2 * longest).totals.done == 20
    assert provider.most == 2


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    answers: list[BatchReply | Http] = [Http(429, "", {"retry-after": "5"}), Http(500), BROKE, OK]
    provider = Provider(lambda _line, tries: answers[tries - 1])
    work(batch_file(tmp_path, 1), provider)
    assert provider.sent == [1, 1, 1, 1]
    assert ids_in(tmp_path / "out.jsonl") == ["r0"]


def test_the_callers_mistake_fails_at_once_with_the_providers_words(tmp_path: Path) -> None:
    provider = Provider(lambda _line, _try: Http(400, error("bad")))
    store = work(batch_file(tmp_path, 1), provider)
    (failure,) = lines_in(tmp_path / "errors.jsonl")
    assert provider.sent == [1]
    assert failure["response"]["body"] == error("bad")
    assert store.totals.failed == 1


def test_a_line_that_can_never_pass_fails_alone_whatever_its_status(tmp_path: Path) -> None:
    never = Http(429, error("Request too large for gpt-5 on tokens per min", "rate_limit_exceeded"))
    source = batch_file(tmp_path, 5)
    provider = Provider(lambda number, _: never if number == 2 else OK)

    work(source, provider)

    assert sorted(provider.sent) == [1, 2, 3, 4, 5]
    assert len(lines_in(tmp_path / "out.jsonl")) == 4
    (failure,) = lines_in(tmp_path / "errors.jsonl")
    assert failure["response"]["status_code"] == 429


def test_a_line_at_which_connections_break_is_left_to_the_next_run(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 3)
    provider = Provider(lambda line, _try: BROKE if line == 1 else OK)
    work(source, provider)
    assert provider.sent.count(1) == 6
    assert sorted(ids_in(tmp_path / "out.jsonl")) == ["r1", "r2"]
    assert lines_in(tmp_path / "errors.jsonl") == []

    again = Provider(lambda _line, _try: OK)
    work(source, again)
    assert again.sent == [1]
    assert sorted(ids_in(tmp_path / "out.jsonl")) == ["r0", "r1", "r2"]


def halted(source: Path, provider: Provider) -> str:
    async def main() -> str:
        with checkpoint_of(source) as store:
            batch = Batch(source, store, provider, ahead=3, chance=random.Random(1))
            await batch.run()
            return batch.halted

    return run_virtual(main())


def test_a_provider_that_is_away_stops_the_run_and_fails_no_line(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 50)
    answer: list[BatchReply | Http] = [OK] * 10
    provider = Provider(lambda _line, _try: answer.pop() if answer else NOBODY)
    assert halted(source, provider) == (
        "the provider cannot be reached (no connection for 60 s): is it up?"
    )
    assert lines_in(tmp_path / "errors.jsonl") == []
    assert len(ids_in(tmp_path / "out.jsonl")) == 10

    work(source, Provider(lambda _line, _try: OK))
    assert sorted(ids_in(tmp_path / "out.jsonl")) == sorted(f"r{n}" for n in range(50))


def test_a_refused_key_stops_the_run_and_fails_no_line(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 50)
    provider = Provider(lambda _line, _try: Http(401, error("Incorrect API key provided")))
    assert halted(source, provider).startswith("the API key is refused (HTTP 401)")
    assert provider.sent == [1, 2, 3]
    assert lines_in(tmp_path / "errors.jsonl") == []


def test_the_command_says_that_the_key_is_refused_and_goes_on_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = batch_file(tmp_path, 60)
    out = tmp_path / "out.jsonl"
    provider = {"model": "slots", "slots": 16, "tokens_per_s": 5000.0, "ttft_s": 0.001}
    with MockServer(MockSettings(provider=provider, api_keys=("right",))) as mock:
        words = ["batch", str(source), "--out", str(out), "--base-url", mock.url, "--quiet"]
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        refused = CliRunner().invoke(group, words)
        assert refused.exit_code == 1
        said = " ".join(refused.output.split())
        assert "stopped, because the API key is refused (HTTP 401)" in said
        assert "60 of 60 are left, none of them lost: run the same command to go on" in said
        assert (tmp_path / "out.errors.jsonl").read_text() == ""
        assert "No key was sent" not in said

        monkeypatch.delenv("OPENAI_API_KEY")
        unset = CliRunner().invoke(group, words)
        assert "No key was sent, for OPENAI_API_KEY is not set." in " ".join(unset.output.split())

        monkeypatch.setenv("OPENAI_API_KEY", "right")
        assert CliRunner().invoke(group, words).exit_code == 0
    assert len(ids_in(out)) == 60


class Spent(BaseHTTPRequestHandler):
    """A provider whose customer has not paid."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"error": {"code": "insufficient_quota", "message": "Pay first."}}'
        self.send_response(429)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_the_command_says_that_the_account_is_spent(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 60)
    with serving_http(Spent) as port:
        url = f"http://127.0.0.1:{port}"
        words = ["batch", str(source), "--out", str(tmp_path / "out.jsonl"), "--base-url", url]
        result = CliRunner().invoke(group, [*words, "--quiet"])
    assert result.exit_code == 1
    assert "stopped, because the account is spent (HTTP 429)" in " ".join(result.output.split())
    assert (tmp_path / "out.errors.jsonl").read_text() == ""


def test_what_is_not_done_by_the_deadline_expires(tmp_path: Path) -> None:
    provider = Provider(lambda _line, _try: OK, takes_s=1.0)
    work(batch_file(tmp_path, 10), provider, ahead=2, deadline_at=2.5)
    failures = lines_in(tmp_path / "errors.jsonl")
    assert len(ids_in(tmp_path / "out.jsonl")) == 4
    assert {f["error"]["code"] for f in failures} == {"batch_expired"}
    assert len(failures) == 6


def test_a_wait_beyond_the_deadline_is_not_waited(tmp_path: Path) -> None:
    provider = Provider(lambda _line, _try: Http(429, error("slow"), {"retry-after": "50"}))
    work(batch_file(tmp_path, 1), provider, deadline_at=10.0)
    (failure,) = lines_in(tmp_path / "errors.jsonl")
    assert (provider.sent, failure["response"]["status_code"]) == ([1], 429)


def test_a_stop_lets_what_flies_finish_and_the_next_run_goes_on(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 10)
    first = Provider(lambda _line, _try: OK)
    store = work(source, first, ahead=2, stop_at=1.5)
    assert (store.totals.done, first.sent) == (4, [1, 2, 3, 4])

    second = Provider(lambda _line, _try: OK)
    store = work(source, second)
    assert second.sent == [5, 6, 7, 8, 9, 10]
    assert (store.totals.done, store.totals.output_tokens) == (10, 50)


def test_a_closed_gate_leaves_the_line_for_the_next_run(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 2)
    store = work(source, Provider(lambda _line, _try: BatchReply(503, standing=Standing.UNSENT)))
    assert store.totals.done == 0


def test_a_full_disk_stops_the_batch_with_its_reason(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 3)

    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115

    async def main() -> None:
        with checkpoint_of(source) as store:
            store._out.close()
            store._out = full
            await Batch(source, store, Provider(lambda _line, _try: OK)).run()

    with pytest.raises(BatchError, match=r"No space left.*is the disk full\? What .* is safe"):
        run_virtual(main())


def test_the_checkpoint_knows_its_input(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 2)
    checkpoint_of(source).close()
    batch_file(tmp_path, 3)
    with pytest.raises(BatchError, match="checkpoint of another input"):
        checkpoint_of(source)


def test_what_is_appended_while_a_run_goes_on_is_none_of_its_lines(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 20)

    def answer(line: int, _nth: int) -> Http:
        if line == 1:
            with source.open("a") as file:
                file.write("".join(json.dumps(request(n)) + "\n" for n in range(20, 900)))
        return OK

    assert work(source, Provider(answer)).totals.succeeded == 20
    with pytest.raises(BatchError, match="or of a changed one"):
        checkpoint_of(source)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE run SET out_bytes='many'",
        "UPDATE run SET failed=NULL",
        "UPDATE run SET error_bytes=-5",
        "ALTER TABLE run ADD COLUMN more",
    ],
)
def test_a_checkpoint_whose_numbers_are_none_says_so(tmp_path: Path, damage: str) -> None:
    source = batch_file(tmp_path, 2)
    checkpoint_of(source).close()
    with closing(sqlite3.connect(tmp_path / "checkpoint")) as database:
        database.execute(damage)
        database.commit()
    with pytest.raises(BatchError, match="no checkpoint"):
        checkpoint_of(source)


def test_two_processes_cannot_share_a_checkpoint(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 2)
    with checkpoint_of(source), pytest.raises(BatchError, match="in use"):
        checkpoint_of(source)


def test_an_output_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious\n")
    with pytest.raises(BatchError, match="would be overwritten"):
        checkpoint_of(batch_file(tmp_path, 1))
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"


def test_an_output_file_that_lost_answers_is_noticed(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 2)
    work(source, Provider(lambda _line, _try: OK))
    (tmp_path / "out.jsonl").write_text("")
    with pytest.raises(BatchError, match="has 0 bytes"):
        checkpoint_of(source)


def test_a_checkpoint_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("not a database, by no means" * 50)
    with pytest.raises(BatchError, match="no checkpoint"):
        checkpoint_of(batch_file(tmp_path, 1))
