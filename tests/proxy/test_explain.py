"""`penstock explain` tells a request's story: what it was, what it waited for, why it ended so."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.explain import command
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    CHAT,
    HELLO,
    UNPREDICTED,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)

FEW = '[[classes]]\nname = "all"\nqueue_limit = 1\nbuckets = ["short", "medium", "long", "xlong"]\n'


def _told(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def _admin(proxy: SidecarThread) -> str:
    return f"http://127.0.0.1:{proxy.admin_port}"


def test_a_request_that_waited_for_room(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url, window=1, more=UNPREDICTED)) as proxy:
        with connect(proxy.port) as first:
            first.sendall(raw_request(headers={"x-mock-output-tokens": "1000"}))
            eventually(lambda: proxy.snapshot().in_flight == 1)
            reply = call(
                proxy.port,
                headers={"x-mock-output-tokens": "7", "x-penstock-deadline-ms": "60000"},
            )
        told = _told(reply.headers["x-penstock-id"], "--admin", _admin(proxy))

    assert "class heavy" in told
    assert "256 output tokens (p50), 1024 (p90), from default" in told
    assert "deadline after 60.000 s" in told
    assert "Dispatched to open: it had waited" in told
    assert "because there was no room upstream" in told
    assert "under a window of 1" in told
    assert "Completed, in time: 7 output tokens (reported by the provider)" in told


def test_an_upstream_whose_window_never_moved_is_asked_about_by_name(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        told = _told("--window", "--upstream", "opne", "--admin", _admin(proxy))
    assert told == "No window moved of opne: is there an upstream of that name?\n"


def test_a_refused_request_and_one_that_left(mock: MockServer, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    more = f'[log]\ndecisions_path = "{log}"\n' + UNPREDICTED
    with sidecar(in_front_of(mock.url, window=1, more=more, classes=FEW)) as proxy:
        with connect(proxy.port) as first, connect(proxy.port) as second:
            first.sendall(
                raw_request({**HELLO, "stream": True}, headers={"x-mock-output-tokens": "99999"})
            )
            eventually(lambda: proxy.snapshot().in_flight == 1)
            second.sendall(raw_request())
            eventually(lambda: proxy.snapshot().waiting == 1)
            refused = call(proxy.port).headers["x-penstock-id"]
        eventually(proxy.idle)

    run = refused.rpartition("-")[0]
    told = _told(refused, "--log", str(log))
    assert "Refused (queue_full): the queue is full" in told
    assert "predicted cost 256 tokens" in told
    assert "The caller went away" in _told(f"{run}-1", "--log", str(log))
    assert "The caller went away" in _told(f"{run}-2", "--log", str(log))


def test_a_request_that_is_still_flying_says_so(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        with connect(proxy.port) as caller:
            body = {**HELLO, "stream": True}
            caller.sendall(raw_request(body, headers={"x-mock-output-tokens": "99999"}))
            head = caller.recv(65536)
            id_ = head.split(b"x-penstock-id: ")[1].split(b"\r\n")[0].decode()
            told = _told(id_, "--admin", _admin(proxy))
    assert "at once." in told
    assert "The first token came." in told
    assert "It has not ended yet." in told


def test_of_a_request_that_still_waits_the_sidecar_says_for_what_and_in_which_place(
    mock: MockServer,
) -> None:
    with (
        sidecar(in_front_of(mock.url, window=1, more=UNPREDICTED)) as proxy,
        connect(proxy.port) as first,
        connect(proxy.port) as second,
    ):
        first.sendall(
            raw_request({**HELLO, "stream": True}, headers={"x-mock-output-tokens": "99999"})
        )
        run = first.recv(65536).split(b"x-penstock-id: ")[1].split(b"-")[0].decode()
        second.sendall(raw_request())
        eventually(lambda: proxy.snapshot().waiting == 1)
        told = _told(f"{run}-2", "--admin", _admin(proxy))
    assert "Now it waits because there was no room upstream." in told
    assert "It is number 1 of its class" in told


def test_a_request_that_was_tried_again(proxy: SidecarThread) -> None:
    reply = call(proxy.port, headers={"x-mock-fault": "status:500"})
    told = _told(reply.headers["x-penstock-id"], "--admin", _admin(proxy))
    assert "The attempt ended without a reply (the upstream failed); it may be tried again" in told
    assert "Dispatched again to open" in told
    assert "because it paused before the next attempt" in told
    assert "Refused (upstream)" in told


@pytest.mark.parametrize("id_", ["nonsense", "ffffff-1", "-", "x-99999999999999999999"])
def test_an_unknown_id_is_said_to_be_unknown(shared: SidecarThread, id_: str) -> None:
    result = CliRunner().invoke(command, ["--admin", _admin(shared), "--", id_])
    assert result.exit_code == 1
    assert "Nothing is known of request" in result.output


def test_no_sidecar_and_no_log_are_said_plainly(tmp_path: Path) -> None:
    none = CliRunner().invoke(command, ["a-1", "--admin", "http://127.0.0.1:9"])
    assert none.exit_code == 1
    assert "no sidecar's admin listener" in none.output
    missing = CliRunner().invoke(command, ["a-1", "--log", str(tmp_path / "none")])
    assert missing.exit_code == 1
    assert "no decision log" in missing.output


def test_the_decisions_page_bounds_what_it_tells(proxy: SidecarThread) -> None:
    for _ in range(5):
        call(proxy.port, CHAT, headers={"x-mock-output-tokens": "2"})
    page = call(proxy.admin_port, "/decisions?limit=2", method="GET", body=None)
    arrived = [line for line in page.body.splitlines() if b'"event":"arrived"' in line]
    assert len(arrived) == 2
    for odd in ("x", "9" * 5000, "-1", "nan", "%D9%A1"):
        odd_page = call(proxy.admin_port, f"/decisions?limit={odd}", method="GET", body=None)
        assert odd_page.status == 400
