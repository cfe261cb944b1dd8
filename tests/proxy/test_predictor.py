"""The learning predictor behind the sidecar, seen from its metrics page and its log."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import penstock.predict
from penstock.cli.group import group
from penstock.predict.online.guard import READ_PER_S
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import HELLO, UNPREDICTED, call, eventually, in_front_of, sidecar


def test_what_replies_teach_is_on_the_metrics_page(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:

        def page() -> str:
            return proxy.metrics()

        eventually(lambda: "penstock_predictor_predicted" in page())
        for _ in range(5):
            reply = call(proxy.port, body=HELLO, headers={"x-mock-output-tokens": "30"})
            assert reply.status == 200
        eventually(lambda: "penstock_predictor_learned 5.0" in page())
        told = page()

    for name in ("bucket_accuracy", "p90_coverage", "fallback_rate"):
        assert f'penstock_predictor_{name}{{route="(all)"}}' in told


BY_SIZE = """
[[classes]]
name = "quick"
buckets = ["short"]
{0}
[[classes]]
name = "slow"
buckets = ["medium", "long", "xlong"]
{0}
"""


@pytest.mark.parametrize(
    ("more", "headers", "usual"),
    [
        ("", {}, 4),
        ("", {"x-penstock-class": "heavy"}, 0),  # it may be below the call's own class
        (BY_SIZE.format(""), {}, 4),
        (BY_SIZE.format("deadline_s = 60"), {}, 0),
        (BY_SIZE.format("") + 'hopeless = "refuse"', {}, 0),
    ],
    ids=["default", "asked", "weights", "deadlines", "hopeless"],
)
def test_a_call_is_read_where_its_length_may_decide_something(
    mock: MockServer,
    monkeypatch: pytest.MonkeyPatch,
    more: str,
    headers: dict[str, str],
    usual: int,
) -> None:
    standing = partial(penstock.predict.GuardedPredictor, clock=lambda: 0.0)
    monkeypatch.setattr(penstock.predict, "GuardedPredictor", standing)
    with sidecar(in_front_of(mock.url) + more) as proxy:
        eventually(lambda: "penstock_predictor_usual 0.0" in proxy.metrics())
        for _ in range(50 + int(READ_PER_S) + 4):
            told = {"x-mock-output-tokens": "3", **headers}
            assert call(proxy.port, body=HELLO, headers=told).status == 200
        assert f"penstock_predictor_usual {usual}.0" in proxy.metrics()


def test_routes_that_are_called_all_and_other_are_routes_like_any_other(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:

        def page() -> str:
            return proxy.metrics()

        eventually(lambda: "penstock_predictor_predicted" in page())
        for route in ("all", "other", *(f"r{number}" for number in range(25))):
            assert call(proxy.port, headers={"x-penstock-route": route}).status == 200
        eventually(lambda: "penstock_predictor_learned 27.0" in page())
        samples = [line.split(" ")[0] for line in page().splitlines() if line[0] != "#"]

    assert len(samples) == len(set(samples))
    rates = {name for name in samples if name.startswith("penstock_predictor_fallback_rate")}
    shown = ("(all)", "(other)", "all", "other", *(f"r{number}" for number in range(18)))
    assert rates == {f'penstock_predictor_fallback_rate{{route="{name}"}}' for name in shown}


def test_a_callers_own_word_stands_and_its_reply_is_a_lesson_all_the_same(
    mock: MockServer,
) -> None:
    toml = in_front_of(mock.url).replace("[anonymous]", "[anonymous]\nmay_state_tokens = true")
    with sidecar(toml) as proxy:

        def page() -> str:
            return proxy.metrics()

        eventually(lambda: "penstock_predictor_predicted" in page())
        said = {"x-mock-output-tokens": "30", "x-penstock-tokens": "700,900"}
        assert call(proxy.port, headers=said).status == 200
        eventually(lambda: "penstock_predictor_learned 1.0" in page())
        told = page()
        decisions = call(proxy.admin_port, "/decisions", method="GET", body=None).body

    assert b'"source":"caller"' in decisions
    assert "penstock_predictor_predicted 0.0" in told


@pytest.mark.parametrize("predictor", ["", UNPREDICTED])
@pytest.mark.parametrize(
    ("prompt", "replies"),
    [("one", 1), (["one"], 1), (["one"] * 5, 5), ([1, 2, 3], 1), ([[1, 2, 3], [4]], 2), ([], 1)],
    ids=str,
)
def test_every_prompt_of_a_completions_body_is_a_reply(
    mock: MockServer, predictor: str, prompt: Any, replies: int
) -> None:
    with sidecar(in_front_of(mock.url, more=predictor)) as proxy:
        assert proxy.running is not None
        estimator = proxy.running.sidecar.predictor
        eventually(lambda: predictor or estimator.guard is not None)
        for n in (1, 3):
            body = {"model": "m", "prompt": prompt, "n": n, "max_tokens": 1}
            call(proxy.port, "/v1/completions", body=body)
            decisions = call(proxy.admin_port, "/decisions?limit=1", method="GET", body=None).body
            assert f'"p90_tokens":{replies * n}.0'.encode() in decisions


def test_the_decision_log_names_the_route_that_was_predicted_for(
    mock: MockServer, tmp_path: Path
) -> None:
    log = tmp_path / "decisions.jsonl"
    with sidecar(in_front_of(mock.url, more=f'[log]\ndecisions_path = "{log}"\n')) as proxy:
        assert proxy.running is not None
        estimator = proxy.running.sidecar.predictor
        eventually(lambda: estimator.guard is not None)
        for _ in range(3):
            named = call(proxy.port, headers={"x-penstock-route": "mail.sort"})
        unnamed = {**HELLO, "messages": [{"role": "system", "content": "secret"}]}
        assert call(proxy.port, body=unnamed).status == 200
        without_usage = {**HELLO, "stream": True, "stream_options": {"include_usage": False}}
        for _ in range(2):
            assert call(proxy.port, body=without_usage).status == 200
        id_ = named.headers["x-penstock-id"]
        told = _run("explain", id_, "--admin", f"http://127.0.0.1:{proxy.admin_port}")
    figures = tmp_path / "figures.json"
    _run("predict", "report", str(log), "--out", f"{tmp_path}/plot.svg", "--json", str(figures))

    for story in (told, _run("explain", id_, "--log", str(log))):
        assert story.splitlines()[0].endswith(", model openai/m, route mail.sort")
    routes = json.loads(figures.read_text())["routes"]
    assert {name.partition("-")[0]: row["n"] for name, row in routes.items()} == {
        "mail.sort": 3,
        "~chat": 1,
    }
    assert "secret" not in log.read_text()


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(24, "Too many open files"), "cannot start"),
        (ImportError("libopenblas64_.so: cannot open shared object file"), "cannot start"),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), "needs the package numpy"),
    ],
)
def test_a_predictor_that_cannot_be_imported_is_told_and_calls_go_on(
    mock: MockServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    said: str,
) -> None:
    def broken(_name: str) -> None:
        raise error

    monkeypatch.delattr(penstock.predict, "GuardedPredictor", raising=False)
    monkeypatch.setattr(penstock.predict, "import_module", broken)
    with sidecar(in_front_of(mock.url)) as proxy:
        eventually(lambda: said in caplog.text)
        assert call(proxy.port, headers={"x-mock-output-tokens": "2"}).status == 200
