"""`penstock batch` as its users run it: over sockets, with their files and their keys."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group
from tests.batch.files import batch_file, ids_in, lines_in, request
from tests.batch.http import REPLY
from tests.listening import serving_http
from tests.proxy.sidecars import sidecar

KEY = "sk-1234567890abcdef"


class Seen:
    """What a provider was sent."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []


@contextmanager
def provider(status: int = 200, body: Any = REPLY, **headers: str) -> Iterator[Seen]:
    """Answer each call alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            seen.bodies.append(content)
            answer = json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with serving_http(Handler) as port:
        seen = Seen(port)
        yield seen


def run(source: Path, url: str, *more: str, key: str = KEY) -> Result:
    out = source.parent / "out.jsonl"
    words = ["batch", str(source), "--out", str(out), "--base-url", url, "--quiet", *more]
    return CliRunner().invoke(group, words, env={"OPENAI_API_KEY": key})


def said(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.mark.parametrize("door", [("--sidecar",), ()])
def test_no_redirect_is_followed_and_none_is_a_result(
    tmp_path: Path, door: tuple[str, ...]
) -> None:
    with provider() as elsewhere, provider(307, "", location=elsewhere.url + "/x") as there:
        result = run(batch_file(tmp_path, 3), there.url, *door)
    assert len(there.bodies) <= 3
    assert result.exit_code == 1
    assert "the base URL answers with a redirect: does it lead to the provider's API?" in said(
        result
    )
    assert "3 of 3 are left, none of them lost" in said(result)
    assert elsewhere.headers == []
    assert (tmp_path / "out.jsonl").read_text() == ""


@pytest.mark.parametrize("key", [f"{KEY}\r{KEY}", f"{KEY}\nx-other: 1", f'"{KEY}"', f"{KEY} x"])
def test_what_is_no_key_is_refused_and_shown_nowhere(tmp_path: Path, key: str) -> None:
    with provider() as there:
        result = run(batch_file(tmp_path, 2), there.url, key=key)
    assert result.exit_code == 2
    assert "'OPENAI_API_KEY' must hold a key" in said(result)
    assert KEY not in result.output
    assert there.headers == []
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_provider_that_quotes_the_key_writes_it_into_no_file(tmp_path: Path) -> None:
    words = {"error": {"message": f"what is {KEY}?", "code": "bad"}}
    with provider(400, words) as there:
        result = run(batch_file(tmp_path, 2), there.url)
    assert "what is" in (tmp_path / "out.errors.jsonl").read_text()
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes()
    assert KEY not in said(result)


def test_a_line_end_after_the_key_is_no_part_of_it(tmp_path: Path) -> None:
    with provider() as there:
        assert run(batch_file(tmp_path, 1), there.url, key=f"{KEY}\r\n").exit_code == 0
    assert there.headers[0]["authorization"] == f"Bearer {KEY}"


def test_class_tenant_and_deadline_reach_the_sidecar(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 2)
    with provider() as there:
        hints = ("--class", "nightly", "--tenant", "acme", "--deadline", "10m")
        assert run(source, there.url, "--sidecar", *hints).exit_code == 0
    for headers in there.headers:
        assert headers["x-penstock-class"] == "nightly"
        assert headers["x-penstock-tenant"] == "acme"
        assert 0 < float(headers["x-penstock-deadline-ms"]) <= 600_000


@pytest.mark.parametrize("headers", [{}, {"x-penstock-id": "1-1"}])
def test_where_no_sidecar_is_one_line_says_so(tmp_path: Path, headers: dict[str, str]) -> None:
    with provider(200, REPLY, **headers) as there:
        result = run(batch_file(tmp_path, 3), there.url, "--sidecar")
    assert result.exit_code == 0
    assert result.output.count("it is no penstock sidecar") == (not headers)


def test_the_class_at_the_sidecar_is_batch_if_none_is_named(tmp_path: Path) -> None:
    with provider() as there:
        assert run(batch_file(tmp_path, 1), there.url, "--sidecar").exit_code == 0
    assert there.headers[0]["x-penstock-class"] == "batch"


def test_a_sidecar_that_names_no_classes_takes_a_batch(tmp_path: Path) -> None:
    with provider() as there:
        config = f"""
        [server]
        port = 0
        [admin]
        enabled = false
        [[upstreams]]
        base_url = "{there.url}/v1"
        auth = "none"
        """
        with sidecar(config) as proxy:
            result = run(batch_file(tmp_path, 3), proxy.url, "--sidecar")
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_without_a_sidecar_the_provider_is_told_no_hint(tmp_path: Path) -> None:
    with provider() as there:
        assert run(batch_file(tmp_path, 1), there.url, "--deadline", "10m").exit_code == 0
    assert not [name for name in there.headers[0] if name.startswith("x-penstock")]


def test_a_class_that_the_sidecar_does_not_know_is_a_clear_error(tmp_path: Path) -> None:
    with provider() as there:
        config = f"""
        [server]
        port = 0
        [admin]
        enabled = false
        [[upstreams]]
        base_url = "{there.url}"
        auth = "none"
        [[classes]]
        name = "interactive"
        buckets = ["short"]
        [[classes]]
        name = "batch"
        buckets = ["medium", "long", "xlong"]
        """
        with sidecar(config) as proxy:
            url = f"{proxy.url}/v1"
            result = run(batch_file(tmp_path, 5), url, "--sidecar", "--class", "heavy")
            assert result.exit_code == 1
            assert "there is no such class; there are interactive, batch." in said(result)
            assert "5 of 5 are left" in said(result)
            assert there.bodies == []
            assert run(tmp_path / "in.jsonl", url, "--sidecar", "--class", "batch").exit_code == 0
    assert len(ids_in(tmp_path / "out.jsonl")) == 5


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--class", "batch"), "--class and --tenant are told to a sidecar: they need --sidecar"),
        (("--tenant", "acme"), "--class and --tenant are told to a sidecar: they need --sidecar"),
        (("--sidecar", "--class", "two words"), "x-penstock-class='two words' is no name"),
        (("--sidecar", "--tenant", "ä"), "x-penstock-tenant="),
    ],
)
def test_a_hint_that_nobody_could_hear_is_refused(
    tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    result = run(batch_file(tmp_path, 1), "http://127.0.0.1:9/v1", *more)
    assert result.exit_code in (1, 2)
    assert says in said(result)


def test_answers_and_checkpoint_are_for_their_owner_alone(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 1)
    out = tmp_path / "new" / "folder" / "out.jsonl"
    with provider() as there:
        words = ["batch", str(source), "--out", str(out), "--base-url", there.url, "--quiet"]
        assert CliRunner().invoke(group, words, env={"OPENAI_API_KEY": KEY}).exit_code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")}
    files = ("out.jsonl", "out.errors.jsonl", "out.jsonl.checkpoint")
    assert modes == {"folder": 0o700, **dict.fromkeys(files, 0o600)}


def test_a_file_that_everybody_may_write_is_not_believed(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 1)
    (tmp_path / "out.jsonl").touch()
    (tmp_path / "out.jsonl").chmod(0o666)
    result = run(source, "http://127.0.0.1:9/v1")
    assert result.exit_code == 1
    assert "may be written by everybody (mode 0666)" in said(result)


def test_half_an_emoji_goes_out_and_comes_back_as_it_was(tmp_path: Path) -> None:
    line = {**request(1), "custom_id": "cut \ud83d"}
    line["body"]["messages"][0]["content"] = "so \ud83d"
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(request(2)) + "\n")
    with provider() as there:
        assert run(tmp_path / "in.jsonl", there.url).exit_code == 0
    assert sorted(ids_in(tmp_path / "out.jsonl")) == ["cut \ud83d", "r2"]
    prompts = [json.loads(body)["messages"][0]["content"] for body in there.bodies]
    assert sorted(prompts) == ["hi", "so \ud83d"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_and_gzip_are_read(tmp_path: Path, packed: bool) -> None:
    text = b"\xef\xbb\xbf" + batch_file(tmp_path, 3).read_bytes()
    source = tmp_path / "in"
    source.write_bytes(gzip.compress(text[:50]) + gzip.compress(text[50:]) if packed else text)
    with provider() as there:
        assert run(source, there.url).exit_code == 0
    assert sorted(ids_in(tmp_path / "out.jsonl")) == ["r0", "r1", "r2"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: gzip.compress(text)[:-20], "its gzip data is damaged or ends early"),
        (lambda text: b"\x1f\x8bnonsense" + text, "its gzip data is damaged or ends early"),
        (lambda text: text.decode().encode("utf-16"), "is UTF-16: it must be UTF-8"),
    ],
)
def test_a_file_in_another_coding_is_named(tmp_path: Path, damage: Any, says: str) -> None:
    source = tmp_path / "in"
    source.write_bytes(damage(batch_file(tmp_path, 50).read_bytes()))
    result = run(source, "http://127.0.0.1:9/v1")
    assert result.exit_code == 1
    assert says in said(result)


def test_a_full_disk_is_a_message(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 3)
    with provider() as there:
        words = ["batch", str(source), "--out", "/dev/full", "--base-url", there.url, "--quiet"]
        more = ["--errors", str(tmp_path / "e"), "--checkpoint", str(tmp_path / "c")]
        result = CliRunner().invoke(group, [*words, *more], env={"OPENAI_API_KEY": KEY})
    assert result.exit_code == 1
    assert "cannot be written" in said(result)
    assert "Traceback" not in result.output


def test_words_of_a_provider_are_shown_as_they_are(tmp_path: Path) -> None:
    """As markup, `[/red]` would end the command."""
    source = batch_file(tmp_path, 1)
    message = "no room [/red] [bold]\x1b[31m"
    with provider(503, {"error": {"message": message}}, **{"retry-after": "0.1"}) as there:
        out = str(tmp_path / "out.jsonl")
        words = ["batch", str(source), "--out", out, "--base-url", there.url, "--deadline", "1s"]
        result = CliRunner().invoke(group, words, env={"OPENAI_API_KEY": KEY})
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "\x1b[31m" not in result.output
    assert len(lines_in(tmp_path / "out.errors.jsonl")) == 1


def test_what_the_gate_held_until_the_deadline_expires(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 3)
    with provider(429, {"error": {"message": "wait"}}, **{"retry-after": "600"}) as there:
        assert run(source, there.url, "--deadline", "2s", "--max-in-flight", "2").exit_code == 1
    failures = lines_in(tmp_path / "out.errors.jsonl")
    assert len(failures) == 3
    for each in failures:
        answered = each["response"] is not None and each["response"]["status_code"] == 429
        assert answered or each["error"]["code"] == "batch_expired"


def test_a_password_in_the_base_url_is_not_shown(tmp_path: Path) -> None:
    url = "http://somebody:hunter2@127.0.0.1:9/v1"
    result = run(batch_file(tmp_path, 1), url, "--sidecar", "--deadline", "2s")
    assert "hunter2" not in result.output
    assert "hunter2" not in (tmp_path / "out.errors.jsonl").read_text()
