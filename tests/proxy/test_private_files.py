"""Files that a sidecar writes are its own: private, and not shared with a second one."""

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.log.reader import read_log
from penstock.proxy.config import loads
from penstock.proxy.server import Running
from penstock.proxy.sidecar import Sidecar
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import call, eventually, in_front_of, sidecar


def _guarded(sidecar: Sidecar) -> bool:
    return sidecar.predictor.guard is not None


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _start(toml: str) -> None:
    async def start() -> None:
        Running(loads(toml, env={}))

    asyncio.run(start())


def test_a_second_sidecar_does_not_write_into_the_first_ones_log(
    mock: MockServer, tmp_path: Path
) -> None:
    toml = in_front_of(mock.url, more=f"[log]\ndecisions_path = '{tmp_path}/d.jsonl'\n")

    with sidecar(toml) as first:
        with pytest.raises(ConfigError, match="is written by another process"):
            _start(toml)
        assert call(first.port).status == 200
    assert _mode(tmp_path / "d.jsonl") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of somebody else needs root")
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_somebody_else_has_put_where_everybody_may_is_not_written(
    mock: MockServer, tmp_path: Path, kind: str
) -> None:
    mine, shared = tmp_path / "mine", tmp_path / "shared"
    mine.write_text("half a line")
    shared.mkdir()
    shared.chmod(0o1777)
    log = shared / "d.jsonl"
    if kind == "link":
        log.symlink_to(mine)
    else:
        log.touch(0o644)
    os.chown(log, 12345, 12345, follow_symlinks=False)
    toml = in_front_of(mock.url, more=f"[log]\ndecisions_path = '{log}'\n")
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        _start(toml)
    assert mine.read_text() == "half a line"


def test_a_second_sidecar_learns_for_itself(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "new" / "state.npz"
    toml = in_front_of(mock.url, more=f"[predictor]\nstate_path = '{state}'\n")
    with sidecar(toml) as first:
        assert first.running is not None
        predictor = first.running.sidecar.predictor
        eventually(lambda: predictor.guard is not None)
        with sidecar(toml) as second:
            eventually(lambda: "nothing is read from it or kept" in caplog.text)
            assert call(second.port).status == 200
        assert not state.exists()
        assert call(first.port).status == 200
    assert _mode(state) == 0o600
    assert _mode(state.parent) == 0o700


def test_a_state_that_everybody_may_write_is_not_believed(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state.npz"
    toml = in_front_of(mock.url, more=f"[predictor]\nstate_path = '{state}'\n")
    for _ in range(2):
        with sidecar(toml) as proxy:
            assert proxy.running is not None
            eventually(partial(_guarded, proxy.running.sidecar))
            assert call(proxy.port).status == 200
        assert _mode(state) == 0o600
        state.chmod(0o666)
    assert "may be written by everybody" in caplog.text


def test_no_state_is_kept_in_a_folder_in_which_everybody_may_write(
    mock: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o777)
    toml = in_front_of(mock.url, more=f"[predictor]\nstate_path = '{tmp_path}/state.npz'\n")
    with sidecar(toml) as proxy:
        assert proxy.running is not None
        eventually(partial(_guarded, proxy.running.sidecar))
        assert call(proxy.port).status == 200
    assert f"chmod o-w {tmp_path}" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_signal_reopens_the_log_and_another_drains(mock: MockServer, tmp_path: Path) -> None:
    log, moved = tmp_path / "d.jsonl", tmp_path / "d.jsonl-old"
    config = tmp_path / "penstock.toml"
    more = f"[log]\ndecisions_path = '{log}'\n[predictor]\nkind = 'off'\n"
    config.write_text(in_front_of(mock.url, more=more))
    with subprocess.Popen(
        [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listens on" in line)
        port = int(line.split(":")[2].split("/")[0])
        assert call(port).status == 200
        eventually(lambda: b"completed" in log.read_bytes())
        log.rename(moved)
        os.kill(process.pid, signal.SIGUSR1)
        eventually(log.exists)
        assert call(port).status == 200
        os.kill(process.pid, signal.SIGQUIT)
        process.stderr.read()
        assert process.wait(20) == 0
    assert len({record.request_id for record in read_log(log) if record.outcome}) == 1
