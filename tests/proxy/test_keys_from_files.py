"""Keys come from variables, files and commands; a rotated one is used without a restart."""

import sys
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.proxy.config import loads
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import call, eventually, sidecar

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456789"


def _toml(url: str, source: str) -> str:
    return f"""
[server]
port = 0
[admin]
enabled = false
[predictor]
kind = "off"
[[upstreams]]
base_url = "{url}/v1"
{source}
api_key_refresh_s = 0.1
"""


def _printing(path: Path) -> str:
    code = "import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text())"
    return f"api_key_command = [{sys.executable!r}, '-c', {code!r}, '{path}']"


@pytest.mark.parametrize("by_command", [False, True])
def test_a_key_is_read_again_while_the_sidecar_runs(
    tmp_path: Path, by_command: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text(f"{FIRST}\n")
    source = _printing(path) if by_command else f"api_key_file = '{path}'"
    settings = MockSettings(provider={"model": "slots"}, api_keys=(FIRST,))
    newer = MockSettings(provider={"model": "slots"}, api_keys=(SECOND,))
    with MockServer(settings) as old, MockServer(newer) as new:
        for mock, key in ((old, FIRST), (new, SECOND)):
            path.write_text(f"{key}\n")
            with sidecar(_toml(mock.url, source)) as proxy:
                assert call(proxy.port).status == 200
        path.write_text(f"{FIRST}\n")
        with sidecar(_toml(new.url, source)) as proxy:
            assert call(proxy.port).status == 401
            path.write_text(f"{SECOND}\n")
            eventually(lambda: call(proxy.port).status == 200)
            path.unlink()
            eventually(lambda: "goes on with the key it had" in caplog.text)
            assert call(proxy.port).status == 200
    assert FIRST not in caplog.text
    assert SECOND not in caplog.text


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("api_key_file = '/nowhere/key'", "cannot be read: No such file or directory"),
        ("api_key_file = '/dev/null'", "is a pipe or a device"),
        ("api_key_command = ['/nowhere/tool']", "cannot be started: No such file or directory"),
        ("api_key_command = ['false']", "ended with status 1"),
        ("api_key_command = ['true']", "printed nothing"),
        ("api_key_command = ['echo', 'two words']", "printable ASCII without spaces"),
        ("api_key_env = 'A'\napi_key_file = '/k'", "stands beside api_key_env"),
        ("auth = 'none'\napi_key_file = '/k'", "leaves api_key_file without use"),
    ],
)
def test_a_key_that_cannot_be_had_is_refused_in_words(source: str, rule: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loads(_toml("http://127.0.0.1:9", source), env={"A": FIRST})
    assert rule in str(raised.value)
    assert FIRST not in str(raised.value)
    assert "two words" not in str(raised.value)


def test_a_file_that_anybody_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(FIRST)
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="may be written by anybody"):
        loads(_toml("http://127.0.0.1:9", f"api_key_file = '{path}'"), env={})
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=r"folder that anybody may write to .its mode is 0777"):
        loads(_toml("http://127.0.0.1:9", f"api_key_file = '{path}'"), env={})


def test_a_caller_presents_the_key_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "alice"
    path.write_text(f"{FIRST}\n")
    settings = MockSettings(provider={"model": "slots"})
    with MockServer(settings) as mock:
        toml = _toml(mock.url, "auth = 'none'") + f"[[keys]]\nname = 'a'\nkey_file = '{path}'\n"
        with sidecar(toml) as proxy:
            assert call(proxy.port).status == 401
            bearer = {"authorization": f"Bearer {FIRST}"}
            assert call(proxy.port, headers=bearer).status == 200
    with pytest.raises(ConfigError, match="key_env"):
        loads(_toml("http://127.0.0.1:9", "") + "[[keys]]\nname = 'a'\n", env={})
