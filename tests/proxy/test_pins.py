"""An operator pins a window, a pause or a weight at a running sidecar, and everybody can see it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group
from penstock.log.reader import read_log, replayed
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import call, connect, eventually, in_front_of, raw_request
from tests.proxy.test_browsers import BEARER, TOKEN, WITH_TOKEN
from tests.proxy.test_reload import LOG, FromFile


@pytest.fixture
def filed(mock: MockServer, tmp_path: Path) -> Iterator[FromFile]:
    log = LOG.format(log=tmp_path / "decisions.jsonl")
    toml = in_front_of(mock.url, window=4, more=WITH_TOKEN + log + '[predictor]\nkind = "off"\n')
    filed = FromFile(tmp_path / "penstock.toml", toml)
    try:
        yield filed
    finally:
        filed.thread.stop()


@pytest.fixture
def run(filed: FromFile, monkeypatch: pytest.MonkeyPatch) -> "Run":
    monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", TOKEN)
    return Run(filed.admin_port)


class Run:
    """Runs the operator's commands."""

    def __init__(self, admin_port: int) -> None:
        self._admin = f"http://127.0.0.1:{admin_port}"

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(group, [*words, "--admin", self._admin])


def test_a_pin_is_set_shown_kept_over_a_reload_and_lifted(filed: FromFile, run: Run) -> None:
    told = run("pin", "open", "--window", "2", "--for", "30m")
    assert told.output == "open has window 2 for 1800 s.\n"
    assert run("pin", "heavy", "--weight", "8", "--for", "2h").exit_code == 0
    filed.change("window = 4", "window = 6")
    assert filed.reload()[0] == 200

    state = filed.thread.snapshot()
    assert [(each.what, each.name, each.value) for each in state.pins] == [
        ("window", "open", 2.0),
        ("weight", "heavy", 8.0),
    ]
    assert (state.upstreams["open"].window, state.upstreams["anthropic"].window) == (2, 6)
    page = call(filed.admin_port, "/metrics", method="GET", headers=BEARER).body.decode()
    assert 'penstock_pin_seconds{name="open",pin="window"} 1' in page
    assert 'penstock_window{upstream="open"} 2.0' in page
    top = run("top", "--once").output
    assert "Held by hand" in top
    assert "weight" in top

    assert run("lift", "open").output == "open: lifted pinned window.\n"
    assert run("lift", "heavy").output == "heavy: lifted pinned weight.\n"
    assert filed.thread.snapshot().pins == ()
    assert filed.thread.snapshot().upstreams["open"].window == 6


def test_a_paused_upstream_gets_nothing_until_the_pin_ends_by_itself_and_the_log_replays(
    filed: FromFile, run: Run, tmp_path: Path
) -> None:
    assert run("pin", "open", "--pause", "--for", "0.5s").output == "open is paused for 0.5 s.\n"
    with connect(filed.port) as caller:
        caller.sendall(raw_request())
        assert caller.recv(65536).startswith(b"HTTP/1.1 200")
    eventually(lambda: filed.thread.snapshot().pins == ())
    assert run("pin", "open", "--window", "3", "--for", "1h").exit_code == 0
    assert run("pin", "opne", "--pause", "--for", "1h").exit_code == 1  # has not happened
    assert call(filed.port).status == 200
    filed.thread.stop()

    moments = list(replayed(read_log(tmp_path / "decisions.jsonl")))
    assert sum(len(recorded) for _, recorded, _ in moments) >= 2
    assert all(recorded == decided for _, recorded, decided in moments)
    text = (tmp_path / "decisions.jsonl").read_text()
    assert text.count('"event":"pinned"') == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody", "--pause", "--for", "1m"), "window and pause are of open"),
        (("open", "--window", "0", "--for", "1m"), "nothing is ever sent"),
        (("open", "--window", "2", "--for", "soon"), "must be a time above 0"),
        (("open", "--window", "2", "--for", "0s"), "must be a time above 0"),
        (("open", "--for", "1m"), "give one of"),
        (("open", "--pause", "--weight", "2", "--for", "1m"), "give one of"),
    ],
)
def test_what_cannot_be_pinned_is_refused_in_words(
    run: Run, filed: FromFile, words: tuple[str, ...], said: str
) -> None:
    refused = run("pin", *words)

    assert refused.exit_code != 0
    assert said in " ".join(refused.output.split())
    assert filed.thread.snapshot().pins == ()


def test_an_upstream_paused_by_hand_is_not_shown_in_use(filed: FromFile, run: Run) -> None:
    assert run("pin", "open", "--pause", "--for", "90s").exit_code == 0

    (state,) = re.findall(r"^open .*", run("top", "--once").output, re.MULTILINE)
    assert re.search(r"paused for (89|90)(\.\d+)? s$", state.strip())


def test_only_the_token_may_pin(filed: FromFile) -> None:
    body = {"what": "pause", "name": "open", "for_s": 60}
    assert call(filed.admin_port, "/admin/pins", body=body).status == 401
    assert call(filed.admin_port, "/admin/pins", body=body, headers=BEARER).status == 200
    assert call(filed.admin_port, "/admin/pins", body=b"{", headers=BEARER).status == 400
