"""Forked children start afresh, with the configuration and the clients of their parent."""

import contextvars
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

import penstock
from penstock import Penstock, PolicySpec, Refused, RequestSpec, Stack
from tests.integrations.http.rig import BODY, CHAT, REPLY, assert_idle, only, penstock_with

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def in_a_child(story: Callable[[], Any]) -> Any:
    """Return what a story returns in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = json.dumps(story())
        except BaseException as error:
            said = json.dumps(repr(error))
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)


def test_a_gate_that_was_full_in_the_parent_is_free_in_the_child() -> None:
    scheduled = penstock_with(window=1)
    gate = scheduled.sync_gate()

    def story() -> list[int]:
        before = only(scheduled).in_flight
        with gate.admit(expires_in_s=30.0):
            return [before, only(scheduled).in_flight]

    with gate.admit():
        assert in_a_child(story) == [0, 1]
        assert only(scheduled).in_flight == 1
    assert_idle(scheduled)


def test_a_slot_that_the_parent_held_is_not_given_back_by_the_child() -> None:
    scheduled = penstock_with(window=1)

    def story() -> int:
        with scheduled.sync_gate().admit():
            slot.settle(penstock.Usage(5))
            return only(scheduled).in_flight

    with scheduled.sync_gate().admit() as slot:
        assert in_a_child(story) == 1
    assert_idle(scheduled)


def test_timed_waits_work_though_the_parents_clock_was_running() -> None:
    scheduled = penstock_with(window=1)
    gate = scheduled.sync_gate()

    def wait_in_vain() -> str:
        with gate.admit():
            try:
                contextvars.Context().run(gate.enter, RequestSpec(expires_in_s=0.05))
            except Refused as refused:
                return refused.reason
        return "no wait"

    assert wait_in_vain() == "expired"  # its clock's thread runs from now on
    assert in_a_child(wait_in_vain) == "expired"


def test_a_fork_in_the_middle_of_a_decision_leaves_no_lock_behind() -> None:
    scheduled = penstock_with(window=1)
    gate = scheduled.sync_gate()
    with gate.admit():
        pass
    driver = scheduled.outlet().driver
    with driver._turn:  # as another thread of the parent may hold it

        def story() -> bool:
            with gate.admit():
                return True

        assert in_a_child(story) is True


def test_the_configuration_stays_and_ids_and_logs_are_the_childs_own(tmp_path: Path) -> None:
    scheduled = Penstock(
        decision_log=tmp_path / "d.jsonl",
        stack=Stack(capacity=PolicySpec("fixed", {"window": 7})),
        tracer=None,
    )

    def call() -> list[Any]:
        with scheduled.sync_gate().admit() as slot:
            pass
        return [slot.id.split("-")[0], only(scheduled).upstreams["default"].window]

    run, window = call()

    def story() -> list[Any]:
        said = call()
        scheduled.close()
        return said

    child_run, child_window = in_a_child(story)
    scheduled.close()
    assert (child_window, window) == (7, 7)
    assert child_run != run
    logs = sorted(tmp_path.glob("d*.jsonl"))
    assert len(logs) == 2
    lines = [log.read_text() for log in logs]
    assert [text.count('"arrived"') for text in lines] == [1, 1]
    assert {json.loads(text.splitlines()[0])["run"] for text in lines} == {run, child_run}


def test_children_draw_other_jitter_than_their_parent() -> None:
    scheduled = penstock_with()
    gate = scheduled.sync_gate()
    drawn = [in_a_child(lambda: gate._chance.random()) for _ in range(2)]
    assert len({*drawn, gate._chance.random()}) == 3


def test_the_child_says_so_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    scheduled = penstock_with()
    said = in_a_child(lambda: caplog.text)
    assert said.count("was forked from") == 1
    assert "was forked" not in caplog.text
    assert_idle(scheduled)


def test_a_learning_predictor_goes_on_to_answer() -> None:
    scheduled = Penstock(predictor="learned", tracer=None)

    def source() -> str:
        for _ in range(200):  # an answer within 4 ms, on a machine that may be busy
            with scheduled.sync_gate().admit(prompt="Name a weir.", route="weirs") as slot:
                slot.settle(penstock.Usage(7))
            if slot.request.estimate.source.startswith("predictor"):
                return "predictor"
        return slot.request.estimate.source

    assert source() == "predictor"
    assert in_a_child(source) == "predictor"


def ask_in_a_process(answers: Any) -> None:
    """Call through the program's penstock, which a spawned process has to configure itself."""
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, json=REPLY))
    status = penstock.client(transport=transport).post(CHAT, json=BODY).status_code
    (state,) = penstock.snapshot().values()
    answers.put((status, state.in_flight, [*state.lanes[0].classes]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_works_either_way(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=ask_in_a_process, args=(answers,))
    process.start()
    status, in_flight, classes = answers.get(timeout=100)
    process.join()
    assert (status, in_flight) == (200, 0)
    assert classes == ["interactive"]


APP = """
import threading
import httpx2
import penstock
from tests.integrations.http.rig import BODY, CHAT, REPLY

penstock.configure(classes=(penstock.TrafficClass("preloaded"),))
client = penstock.client(
    transport=httpx2.MockTransport(lambda _request: httpx2.Response(200, json=REPLY))
)
client.post(CHAT, json=BODY)
held = penstock.sync_gate("provider.example").enter(penstock.RequestSpec())


def app(environ, start_response):
    status = client.post(CHAT, json=BODY).status_code
    state = penstock.snapshot()["provider.example"]
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"{status} {state.in_flight} {' '.join(state.lanes[0].classes)}".encode()]
"""


def test_gunicorn_with_preload_serves_from_clean_workers(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(APP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).parents[2])
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind",
             f"127.0.0.1:{port}", "--pythonpath", f"{tmp_path},{root}", "served:app"],
            stderr=log,
        )  # fmt: skip
    try:
        assert answer_of(f"http://127.0.0.1:{port}/", server) == "200 0 preloaded"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def answer_of(url: str, server: "subprocess.Popen[bytes]") -> str:
    """Return what a server says once it listens."""
    waited = threading.Event()
    until = time.monotonic() + 100
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return str(answer.read().decode())
        except OSError:
            waited.wait(0.05)
    raise AssertionError(f"gunicorn did not serve; it ended with {server.poll()}")
