"""Beside the traffic: what others would have done, asked of the log's end in a process apart."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.errors import ConfigError
from penstock.log.reader import read_log, read_tail
from penstock.proxy.config import loads
from penstock.proxy.promote import promoted
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from penstock.twin.history import history_of
from penstock.twin.model import twin_of
from penstock.twin.policy import read_policy
from penstock.twin.shadow import DIRECT_POLICY, report
from penstock.twin.whatif import whatif, witnesses
from tests.proxy.sidecars import call, eventually, in_front_of, sidecar
from tests.proxy.test_browsers import BEARER, TOKEN, WITH_TOKEN
from tests.proxy.test_reload import FromFile
from tests.twin.test_walk import SCENARIO, run

UPSTREAM = '[[upstreams]]\nbase_url = "http://127.0.0.1:9/v1"\nauth = "none"\n'
NARROW = """
[shadow.policies.narrow]  # from last week's what-if
scheduler = { capacity = { kind = "fixed", window = 3 } }

[[shadow.policies.narrow.classes]]
name = "interactive"
weight = 9.0
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shadow")
    (folder / "scenario.toml").write_text(SCENARIO)
    path = folder / "decisions.jsonl"
    assert run("simulate", folder / "scenario.toml", "--decision-log", path).exit_code == 0
    return path


def asked(
    log: Path, policies: dict[str, Any], most_bytes: int = 1 << 30, most_calls: int = 1 << 30
) -> Any:
    """Return the answer as JSON has it, made here: the process apart has the lowest priority."""
    answer = report(log, policies, most_bytes=most_bytes, most_calls=most_calls)
    return json.loads(json.dumps(answer))


@pytest.mark.slow
def test_direct_calls_are_always_asked_and_a_policy_that_cannot_be_is_told(log: Path) -> None:
    narrow = {"scheduler": {"capacity": {"kind": "fixed", "window": 2}}}
    odd = {"classes": [{"name": "urgent", "weight": 2.0}]}

    answer = asked(log, {"narrow": narrow, "odd": odd})

    assert answer["trusted"] is True
    assert answer["calls"] == 500
    assert answer["policies"]["narrow"][0]["figures"]["met"]["high"] < 0
    assert answer["policies"]["direct"][0]["figures"]["met"]["low"] < 0
    assert "there is no 'urgent'" in answer["policies"]["odd"]


@pytest.mark.slow
def test_asked_together_policies_are_told_what_each_is_told_alone(log: Path) -> None:
    past = history_of(read_log(log))
    twin = twin_of(past)
    direct = read_policy(DIRECT_POLICY, where="direct")

    together = whatif(past, twin, direct, held=witnesses(past, twin))

    assert together == whatif(past, twin, direct)


@pytest.mark.slow
def test_only_the_logs_end_is_read(log: Path) -> None:
    answer = asked(log, {}, most_bytes=log.stat().st_size // 2)

    assert 180 < answer["calls"] < 320


def test_of_the_logs_end_only_the_latest_calls_are_looked_at(log: Path) -> None:
    assert asked(log, {}, most_calls=150)["calls"] == 150


def test_the_logs_end_has_the_run_and_the_settings_that_it_had(log: Path, tmp_path: Path) -> None:
    """As after a restart and a reload that are further back than the end."""
    lines = log.read_text().splitlines()
    header, changed = json.loads(lines[0]), json.loads(lines[0])["settings"]
    header["run"] = "second"
    changed["classes"][0]["weight"] = 9.0
    now = json.loads(lines[100])["now"]
    reload = {"now": now, "event": "reconfigured", "settings": changed}
    file = tmp_path / "d.jsonl"
    written = (json.dumps(each, separators=(",", ":")) for each in (header, reload))
    file.write_text("\n".join([*lines[:100], *written, *lines[100:], ""]))

    history = history_of(read_tail(file, file.stat().st_size // 2))

    assert history.run == "second"
    assert history.settings.classes[0].weight == 9.0
    assert 100 < len(history.calls) < 400


def test_a_log_that_says_nothing_yet_is_a_problem_in_words(tmp_path: Path) -> None:
    bounds = {"most_bytes": 1 << 30, "most_calls": 1 << 30}
    question = {"log": str(tmp_path / "none.jsonl"), "policies": {}, **bounds}
    answer = subprocess.run(
        [sys.executable, "-m", "penstock.twin.shadow"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    assert "no decision log at" in json.loads(answer.stdout)["problem"]


def test_the_tail_goes_back_into_the_elder_file(log: Path, tmp_path: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    (tmp_path / "d.jsonl.1").write_bytes(b"".join(lines[:1001]))
    (tmp_path / "d.jsonl").write_bytes(lines[0] + b"".join(lines[2001:]))
    young = (tmp_path / "d.jsonl").stat().st_size

    everything = list(read_log(tmp_path / "d.jsonl"))
    tail = list(read_tail(tmp_path / "d.jsonl", young + 60_000))

    assert len(everything) - 1000 < len(tail) < len(everything)
    assert tail[-1] == everything[-1]


def test_a_shadow_needs_the_log_and_classes_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"shadow\.enabled = true.*needs log\.decisions_path"):
        loads(UPSTREAM + "[shadow]\nenabled = true\n", env={})
    with pytest.raises(ConfigError, match=r"shadow\.policies\.narrow.*there is no 'interactive'"):
        loads(UPSTREAM + NARROW + '[[classes]]\nname = "all"\n', env={})


def test_a_promoted_policy_is_laid_over_the_file_and_its_comments_stay() -> None:
    text = promoted("# ours\n" + UPSTREAM + NARROW, "narrow")

    assert text.startswith("# ours\n")
    assert "# from last week's what-if" in text
    settings = loads(text, env={}).settings
    assert settings.stack.capacity.options == {"window": 3}
    weights = {each.name: each.weight for each in settings.classes}
    assert weights == {"interactive": 9.0, "heavy": 1.0, "batch": 1.0}
    assert loads(text, env={}).config.classes[0].buckets == ("short",)


def test_a_wish_for_another_provider_cannot_be_promoted() -> None:
    wish = '[[shadow.policies.more.upstreams]]\nname = "second"\nlike = "default"\n'

    with pytest.raises(ConfigError, match="asks about a provider that no configuration makes"):
        promoted(UPSTREAM + wish, "more")
    with pytest.raises(ConfigError, match="has no 'less': it has more"):
        promoted(UPSTREAM + wish, "less")


def test_without_a_sidecar_the_file_stays_as_it_was_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_bytes((UPSTREAM + NARROW).replace("\n", "\r\n").encode("utf-8-sig"))
    before = path.read_bytes()

    result = run("promote", "narrow", "-c", path, "--admin", "http://127.0.0.1:9")

    assert result.exit_code == 1
    assert "no sidecar's admin listener" in result.output
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["penstock.toml"]


def test_promote_writes_the_file_and_the_sidecar_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", TOKEN)
    wide = "[shadow.policies.wide]\nscheduler = { capacity = { kind = 'fixed', window = 7 } }\n"
    stuck = "[shadow.policies.stuck]\nscheduler = { queue_limit = 5 }\n"
    with MockServer(MockSettings(provider={"model": "slots"})) as mock:
        toml = in_front_of(mock.url, window=1, more=WITH_TOKEN + wide + stuck)
        filed = FromFile(tmp_path / "penstock.toml", toml)
        filed.path.chmod(0o640)
        words = ["-c", str(filed.path), "--admin", f"http://127.0.0.1:{filed.admin_port}"]
        try:
            taken = CliRunner().invoke(group, ["promote", "wide", *words])
            assert taken.exit_code == 0, taken.output
            assert "scheduler.capacity" in taken.output
            assert filed.path.stat().st_mode & 0o777 == 0o640
            window = filed.thread.snapshot().upstreams["open"].window
            assert window == 7
            assert call(filed.port).status == 200

            held = filed.path.read_text().replace("port = 0", "port = 9", 1)
            filed.path.write_text(held)  # only a restart takes that
            refused = CliRunner().invoke(group, ["promote", "stuck", *words])
            assert refused.exit_code == 1
            assert "is as it was" in refused.output
            assert filed.path.read_text() == held
        finally:
            filed.thread.stop()


def test_before_the_first_answer_the_page_says_when_it_is_asked_for(tmp_path: Path) -> None:
    more = f"[log]\ndecisions_path = '{tmp_path / 'log'}'\n[shadow]\nenabled = true\n"
    with sidecar(in_front_of("http://127.0.0.1:9/v1", more=more)) as proxy:
        shown = call(proxy.admin_port, "/dashboard/view?name=whatif", method="GET", body=None)
    assert "the first is asked for 60 s after the start" in shown.json()["report"]["soon"]


def test_a_sidecar_asks_by_itself_and_shows_the_answer(tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    more = f"[log]\ndecisions_path = '{log}'\n[shadow]\nenabled = true\nevery_s = 1.0\n"
    with MockServer(MockSettings(provider={"model": "slots"})) as mock:
        toml = in_front_of(mock.url, window=4, more=WITH_TOKEN + more)
        filed = FromFile(tmp_path / "penstock.toml", toml)
        try:
            assert call(filed.port).status == 200

            def answered() -> bool:
                page = call(filed.admin_port, "/shadow", method="GET", headers=BEARER)
                return page.status == 200 and page.json() is not None

            eventually(answered, within_s=240.0)
            page = call(filed.admin_port, "/shadow", method="GET", headers=BEARER).json()
            assert "too few replies have ended" in page["problem"]
        finally:
            filed.thread.stop()
