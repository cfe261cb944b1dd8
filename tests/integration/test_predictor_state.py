"""The predictor's state file: written while the sidecar runs, and only used where it fits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.predict import CallFeatures, OnlinePredictor
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import HELLO, SidecarThread, call, eventually, in_front_of, sidecar

TOKENS = {"x-mock-output-tokens": "37", "x-penstock-route": "r"}
R = CallFeatures.from_body(HELLO, endpoint="chat", route="r")


def _toml(url: str, state: Path, *, prior: str = "shipped", save_every_s: float = 300) -> str:
    predictor = f'[predictor]\nkind = "online"\nprior = "{prior}"\nstate_path = "{state}"\n'
    return in_front_of(url, more=f"{predictor}save_every_s = {save_every_s}\n")


def _ready(proxy: SidecarThread) -> None:
    assert proxy.running is not None
    estimator = proxy.running.sidecar.predictor
    eventually(lambda: estimator.guard is not None)


def _replies(state: Path) -> int:
    return OnlinePredictor.load(state).model.replies if state.exists() else 0


def test_what_was_learnt_is_kept_although_the_sidecar_is_killed(
    mock: MockServer, tmp_path: Path
) -> None:
    state, config = tmp_path / "predictor.state", tmp_path / "penstock.toml"
    config.write_text(_toml(mock.url, state, save_every_s=0.1))
    command = [sys.executable, "-m", "penstock", "serve", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(":")[2].removesuffix("/v1\n"))

        def taught() -> bool:  # replies that come before the predictor is there teach nothing
            assert call(port, headers=TOKENS).status == 200
            return _replies(state) >= 20

        eventually(taught)
        os.kill(process.pid, signal.SIGKILL)

    assert 30 < OnlinePredictor.load(state).predict(R).p50_tokens < 45


def test_nothing_is_written_while_nothing_is_learnt(mock: MockServer, tmp_path: Path) -> None:
    state = tmp_path / "predictor.state"
    with sidecar(_toml(mock.url, state, save_every_s=0.02)) as proxy:
        _ready(proxy)
        assert call(proxy.port, headers=TOKENS).status == 200
        eventually(state.exists)
        state.unlink()
        for _ in range(10):  # the loop turns, and so would the timer
            assert call(proxy.admin_port, "/metrics", method="GET", body=None).status == 200
        assert not state.exists()
    assert _replies(state) == 1  # at the end it is written all the same


def _prior(folder: Path, name: str, tokens: int) -> str:
    records, prior = folder / f"{name}.jsonl", folder / f"{name}.npz"
    rows = [{"prompt": f"question {n}", "output_tokens": tokens, "route": "r"} for n in range(40)]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(group, ["predict", "train", str(records), "--out", str(prior)])
    assert done.exit_code == 0, done.output
    return str(prior)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "shipped",
            "none",
            "was learned on top of the shipped prior or one like it, not of no prior",
        ),
        ("none", "shipped", "was learned on top of no prior, not of the shipped prior or"),
        (
            "OWN",
            "shipped",
            "was learned on top of a prior of your own, not of the shipped prior or",
        ),
        ("OWN", "none", "was learned on top of a prior of your own, not of no prior"),
        ("none", "OWN", "was learned on top of no prior, not of a prior of your own"),
        ("OWN", "OTHER", "was learned on top of a prior of your own, but of another one than this"),
    ],
)
def test_a_state_learnt_on_another_prior_is_kept_under_a_name_that_tells_why(
    mock: MockServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    before: str,
    after: str,
    says: str,
) -> None:
    state, config = tmp_path / "predictor.state", tmp_path / "penstock.toml"
    names = {"OWN": _prior(tmp_path, "own", 300), "OTHER": _prior(tmp_path, "other", 900)}
    with sidecar(_toml(mock.url, state, prior=names.get(before, before))) as proxy:
        _ready(proxy)
        assert call(proxy.port, headers=TOKENS).status == 200
    with sidecar(_toml(mock.url, state, prior=names.get(before, before))) as proxy:
        _ready(proxy)  # the same prior again: nothing is amiss
    assert "predictor" not in caplog.text
    learnt = state.read_bytes()

    config.write_text(_toml(mock.url, state, prior=names.get(after, after)))
    checked = CliRunner().invoke(group, ["serve", "--check", "--config", str(config)])
    assert says in checked.output
    assert state.exists()
    with sidecar(config.read_text()) as proxy:
        _ready(proxy)
        assert call(proxy.port, headers=TOKENS).status == 200
        last = call(proxy.admin_port, "/decisions?limit=1", method="GET", body=None).body

    kept = tmp_path / "predictor.state.other-prior"
    assert says in caplog.text
    assert f"it is kept as {kept}" in caplog.text
    assert kept.read_bytes() == learnt
    sources = {"shipped": b"predictor:shipped", "none": b"predictor:online"}
    assert sources.get(after, b"predictor:trained") in last


def test_a_prior_that_everybody_may_write_is_not_believed(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, config = tmp_path / "predictor.state", tmp_path / "penstock.toml"
    prior = Path(_prior(tmp_path, "own", 300))
    prior.chmod(0o666)
    config.write_text(_toml(mock.url, state, prior=str(prior)))

    checked = CliRunner().invoke(group, ["serve", "--check", "--config", str(config)])
    assert "may be written by everybody" in checked.output
    with sidecar(config.read_text()) as proxy:
        _ready(proxy)
        assert call(proxy.port, headers=TOKENS).status == 200
    assert "may be written by everybody" in caplog.text


def _with_method_99(data: bytes) -> bytes:
    """Say that all parts are packed by a method nobody knows: NotImplementedError in zipfile."""
    return _patched(data, b"PK\x01\x02", 10, b"\x63\x00")


def _as_if_encrypted(data: bytes) -> bytes:
    """Set the flag of encryption: RuntimeError in zipfile."""
    return _patched(data, b"PK\x01\x02", 8, b"\x01\x00")


def _patched(data: bytes, mark: bytes, at: int, by: bytes) -> bytes:
    head, *entries = data.split(mark)
    return mark.join([head, *(e[: at - 4] + by + e[at - 4 + len(by) :] for e in entries)])


@pytest.mark.parametrize("damage", [_with_method_99, _as_if_encrypted, lambda data: data[:200]])
@pytest.mark.parametrize("what", ["state", "prior"])
def test_whatever_damage_does_to_a_file_the_sidecar_serves_and_check_says_it(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, what: str
) -> None:
    assert callable(damage)
    state, config = tmp_path / "predictor.state", tmp_path / "penstock.toml"
    prior = _prior(tmp_path, "own", 300)
    with sidecar(_toml(mock.url, state, prior=prior)) as proxy:
        _ready(proxy)
    broken = state if what == "state" else Path(prior)
    broken.write_bytes(damage(broken.read_bytes()))
    config.write_text(_toml(mock.url, state, prior=prior))

    checked = CliRunner().invoke(group, ["serve", "--check", "--config", str(config)])
    assert checked.exit_code == 1
    assert "1 problem; nothing was started." in checked.output
    assert f"'{broken}': cannot be used: " in checked.output
    with sidecar(config.read_text()) as proxy:
        _ready(proxy)
        assert call(proxy.port, headers=TOKENS).status == 200

    assert (tmp_path / "predictor.state.damaged").exists() == (what == "state")
    assert "cannot be used" in caplog.text
