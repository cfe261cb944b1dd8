"""The sidecar with the learning predictor: it predicts, it learns, and it keeps what it learnt."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.errors import ConfigError
from penstock.proxy.config import loads
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import HELLO, call, eventually, in_front_of, sidecar

TOKENS = {"x-mock-output-tokens": "37"}


def _toml(url: str, state: Path) -> str:
    predictor = f'[predictor]\nkind = "online"\nstate_path = "{state}"\n'
    return in_front_of(url, more=predictor)


def _sources(lines: bytes) -> list[str]:
    return [
        line.split(b'"source":"')[1].split(b'"')[0].decode()
        for line in lines.splitlines()
        if b'"event":"arrived"' in line
    ]


def test_replies_teach_the_predictor_and_the_state_outlives_the_sidecar(
    mock: MockServer, tmp_path: Path
) -> None:
    state = tmp_path / "predictor.state"
    with sidecar(_toml(mock.url, state)) as proxy:
        assert proxy.running is not None
        estimator = proxy.running.sidecar.predictor
        # It loads beside the traffic; until then the table's estimates stand.
        eventually(lambda: estimator.guard is not None)
        for number in range(30):
            body = {**HELLO, "stream": bool(number % 2), "stream_options": {"include_usage": True}}
            assert call(proxy.port, body=body, headers=TOKENS).status == 200
        eventually(proxy.idle)
        assert estimator.guard is not None
        assert estimator.guard.flush()
        assert estimator.guard.counts.learned == 30
        page = proxy.metrics()
        decisions = call(proxy.admin_port, "/decisions?limit=50", method="GET", body=None).body

    assert any(source.startswith("predictor:") for source in _sources(decisions))
    assert "penstock_predictor_learned 30.0" in page
    assert state.exists()
    assert b"hello there" not in state.read_bytes()

    # The next sidecar begins where this one ended: 37 tokens, which no prior could know.
    with sidecar(_toml(mock.url, state)) as proxy:
        assert proxy.running is not None
        estimator = proxy.running.sidecar.predictor
        eventually(lambda: estimator.guard is not None)
        assert call(proxy.port, headers=TOKENS).status == 200
        first = call(proxy.admin_port, "/decisions?limit=1", method="GET", body=None).body
    assert 30 < float(first.split(b'"p50_tokens":')[1].split(b",")[0]) < 45


def test_a_state_is_kept_in_a_folder_that_was_not_there(mock: MockServer, tmp_path: Path) -> None:
    state = tmp_path / "new" / "predictor.state"
    with sidecar(_toml(mock.url, state)):
        pass
    assert state.exists()


def test_a_state_that_cannot_be_kept_is_said_and_the_sidecar_ends_well(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    with sidecar(_toml(mock.url, tmp_path / "file" / "predictor.state")) as proxy:
        assert call(proxy.port, headers=TOKENS).status == 200
    assert "predictor.state cannot be written" in caplog.text
    assert "what was learnt since the last write is lost" in caplog.text


def test_a_damaged_state_is_no_reason_not_to_serve(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "predictor.state"
    state.write_bytes(b"not a state")
    with sidecar(_toml(mock.url, state)) as proxy:
        assert proxy.running is not None
        estimator = proxy.running.sidecar.predictor
        eventually(lambda: estimator.guard is not None)
        assert call(proxy.port, headers=TOKENS).status == 200
    assert "predictor.state: not a readable penstock predictor state file" in caplog.text
    kept = tmp_path / "predictor.state.damaged"
    assert f"it is kept as {kept}" in caplog.text
    assert kept.read_bytes() == b"not a state"
    assert state.read_bytes().startswith(b"PK")  # what was learnt since


def test_a_second_damaged_state_does_not_replace_the_first(
    mock: MockServer, tmp_path: Path
) -> None:
    state = tmp_path / "predictor.state"
    for damage in (b"one", b"two", b"three"):
        state.write_bytes(damage)
        with sidecar(_toml(mock.url, state)):
            pass
    kept = sorted(tmp_path.glob("predictor.state.damaged*"))
    assert [path.read_bytes() for path in kept] == [b"one", b"two", b"three"]


def test_a_folder_in_the_states_place_is_left_alone(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "predictor.state"
    state.mkdir()
    with sidecar(_toml(mock.url, state)) as proxy:
        assert proxy.running is not None
        estimator = proxy.running.sidecar.predictor
        eventually(lambda: estimator.guard is not None)
        assert "predictor.state cannot be written (Is a directory" in caplog.text  # at once
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["predictor.state", "predictor.state.lock"]
    assert not list(state.iterdir())


def test_a_prior_of_ones_own_is_where_it_starts(mock: MockServer, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    rows = [{"prompt": f"question {n}", "output_tokens": 300, "route": "r"} for n in range(40)]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prior = tmp_path / "prior.npz"
    done = CliRunner().invoke(group, ["predict", "train", str(records), "--out", str(prior)])
    assert done.exit_code == 0, done.output
    own = f'[predictor]\nkind = "online"\nprior = "{prior}"\n'

    with sidecar(in_front_of(mock.url, more=own)) as proxy:
        assert proxy.running is not None
        estimator = proxy.running.sidecar.predictor
        eventually(lambda: estimator.guard is not None)
        assert call(proxy.port, headers={**TOKENS, "x-penstock-route": "r"}).status == 200
        first = call(proxy.admin_port, "/decisions?limit=1", method="GET", body=None).body

    assert _sources(first) == ["predictor:trained"]
    assert 200 < float(first.split(b'"p50_tokens":')[1].split(b",")[0]) < 450


def test_a_prior_that_is_not_there_is_said_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"predictor\.prior = '/nowhere\.npz': must be shipped"):
        loads(in_front_of("http://h", more='[predictor]\nprior = "/nowhere.npz"\n'), env={})
