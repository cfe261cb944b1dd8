"""`penstock serve --check` opens what the configuration names, and changes nothing."""

import gc
import shutil
import socket
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group
from tests.proxy.sidecars import in_front_of, sidecar
from tests.proxy.test_config import LEAST

ONLINE = LEAST + "[predictor]\nkind = 'online'\n"


def check(folder: Path, toml: str) -> Result:
    file = folder / "penstock.toml"
    file.write_text(toml)
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(group, ["serve", "--check", "--config", str(file)])
    assert sorted(folder.rglob("*")) == before
    return result


def test_a_configuration_whose_files_can_be_used_is_good(tmp_path: Path) -> None:
    prior = tmp_path / "prior.npz"
    with resources.as_file(resources.files("penstock.predict") / "prior" / "prior.npz") as shipped:
        shutil.copy(shipped, prior)
    toml = f"{ONLINE}prior = '{prior}'\nstate_path = '{tmp_path}/new/state'\n"
    toml += f"[log]\ndecisions_path = '{tmp_path}/logs/decisions.jsonl'\n"

    result = check(tmp_path, toml)

    assert result.exit_code == 0, result.output
    assert result.output.endswith("good.\n")


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (ONLINE + "prior = 'DIR/junk'\n", "predictor.prior = 'DIR/junk': cannot be used: "),
        (ONLINE + "state_path = 'DIR/junk'\n", "predictor.state_path = 'DIR/junk': cannot be used"),
        (
            ONLINE + "state_path = 'DIR/junk/state'\n",
            "predictor.state_path = 'DIR/junk/state': cannot be written: Not a directory (a part",
        ),
        (
            LEAST + "[log]\ndecisions_path = 'DIR'\n",
            "log.decisions_path = 'DIR': cannot be written: Is a directory (a folder stands there",
        ),
        (
            "[server]\nhost = '192.0.2.1'\n" + LEAST,
            "server.host = '192.0.2.1': cannot listen on 192.0.2.1:8787: Cannot assign requested",
        ),
        ("[admin]\nhost = 'no-such-host.invalid'\n" + LEAST, "admin.host = 'no-such-host.invalid'"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_key(tmp_path: Path, toml: str, says: str) -> None:
    (tmp_path / "junk").write_bytes(b"not what it should be")

    result = check(tmp_path, toml.replace("DIR", str(tmp_path)))

    assert result.exit_code == 1
    assert "1 problem; nothing was started." in result.output
    assert says.replace("DIR", str(tmp_path)) in result.output


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    toml = ONLINE + f"state_path = '{tmp_path}'\n[log]\ndecisions_path = '{tmp_path}'\n"
    assert "2 problems; nothing was started." in check(tmp_path, toml).output


def test_a_predictor_that_is_off_needs_no_state(tmp_path: Path) -> None:
    toml = ONLINE.replace("online", "off") + f"state_path = '{tmp_path}'\n"
    assert check(tmp_path, toml).exit_code == 0


def test_garbage_is_collected_after_a_check_and_once_a_sidecar_listens(tmp_path: Path) -> None:
    """Not while it starts: that took 8 % of it, and found 0.6 MB."""
    check(tmp_path, LEAST)
    assert gc.isenabled()

    gc.disable()
    with sidecar(in_front_of("http://127.0.0.1:9")):
        assert gc.isenabled()


def test_a_port_that_the_running_sidecar_has_is_no_mistake(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert check(tmp_path, f"[server]\nport = {port}\n{LEAST}").exit_code == 0


def test_a_tokenizer_that_is_asked_for_and_not_installed_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.proxy.preflight.find_spec", lambda _name: None)

    result = check(tmp_path, ONLINE + "count_prompts = true\n")

    assert result.exit_code == 1
    assert "predictor.count_prompts" in result.output
    assert "penstock[tokenizer]" in result.output
