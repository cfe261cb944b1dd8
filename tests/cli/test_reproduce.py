import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.cli.reproduce import command
from penstock.experiments.paper import paper_directory
from tests.browsers import assert_readable
from tests.child_processes import children_of, handles_sigint


def reproduce(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result.output


@pytest.fixture(scope="module", autouse=True)
def short_workloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have commands in this process read the specifications with a fifth of the requests."""
    folder = tmp_path_factory.mktemp("paper")
    for source in paper_directory().glob("*.toml"):
        text = source.read_text("utf-8").replace("requests = 400", "requests = 80")
        (folder / source.name).write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.experiments.paper.paper_directory", lambda: folder)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small study with worlds, for all tests that only read."""
    out = tmp_path_factory.mktemp("study")
    reproduce(
        *("noise", "overload", "--seeds", "1", "--worlds", "2", "--jobs", "2"),
        *("--out", str(out), "--json", str(out / "study.json")),
    )
    return out


@pytest.mark.slow
def test_the_json_has_the_form_that_the_issue_promises(done: Path) -> None:
    document = json.loads((done / "study.json").read_text("utf-8"))

    assert set(document) == {"claims", "tables"}
    assert [claim["claim"] for claim in document["claims"]] == ["P4", "P7"]
    for claim in document["claims"]:
        assert list(claim) == ["claim", "published", "measured", "band", "holds", "worlds_share"]
        assert claim["holds"] is None  # one seed decides nothing
        assert claim["worlds_share"] in (0.0, 0.5, 1.0)
    assert {"losses", "noise", "overload", "worlds"} == set(document["tables"])
    row = document["tables"]["noise"][0]
    assert row["regime"] == "balanced/medium"
    assert row["short_p95_s"] > 0
    assert row["short_p95_s_low"] is row["short_p95_s_high"] is None  # nor has it an interval


@pytest.mark.slow
def test_the_report_is_one_file_that_fetches_nothing(done: Path) -> None:
    assert_readable(done / "report.html")
    html = (done / "report.html").read_text("utf-8")

    assert html.count("<svg ") >= 3
    fetched = re.findall(
        r"""(?:src|href)\s*=\s*["'](?!#|data:)[^"']*|url\((?!#)[^)]*|@import""", html
    )
    assert fetched == []
    for heading in ("Claims", "Predictor noise", "Overload policies", "Perturbed worlds"):
        assert f"<h2>{heading}</h2>" in html
    assert "<script" not in html


@pytest.mark.slow
def test_the_markdown_links_only_plots_that_stand_beside_it(done: Path) -> None:
    text = (done / "report.md").read_text("utf-8")
    linked = re.findall(r"\]\((plots/[^)]+)\)", text)

    assert linked
    assert all((done / name).read_text("utf-8").startswith("<?xml") for name in linked)


@pytest.mark.slow
def test_a_second_time_nothing_is_run_and_every_byte_is_the_same(
    done: Path, tmp_path: Path
) -> None:
    shutil.copy(done / "runs.jsonl", tmp_path / "runs.jsonl")

    said = reproduce(
        *("noise", "overload", "--seeds", "1", "--worlds", "2", "--jobs", "1"),
        *("--out", str(tmp_path), "--json", str(tmp_path / "study.json")),
    )

    assert "0 runs made" in said
    for name in ("study.json", "report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (done / name).read_bytes()


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One experiment with one seed, made in one process."""
    out = tmp_path_factory.mktemp("one")
    reproduce("allocation", "--seeds", "1", "--jobs", "1", "--out", str(out))
    return out


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(one_seed: Path, tmp_path: Path) -> None:
    said = reproduce("allocation", "--seeds", "1", "--jobs", "2", "--out", str(tmp_path))

    assert "25 runs made" in said
    assert (one_seed / "report.html").read_bytes() == (tmp_path / "report.html").read_bytes()


@pytest.mark.slow
def test_a_dash_is_standard_output_and_all_the_rest_goes_to_standard_error(
    one_seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(one_seed, "reproduction")

    said = CliRunner().invoke(command, ["allocation", "--seeds", "1", "--jobs", "1", "--json", "-"])

    assert [claim["claim"] for claim in json.loads(said.stdout)["claims"]] == ["P6"]
    assert "0 runs made" in said.stderr
    assert "Fair Queuing" in said.stderr
    assert "perturbed worlds" not in said.stderr  # none were asked for
    assert not (tmp_path / "-").exists()


@pytest.mark.slow
def test_fewer_seeds_than_the_claims_need_are_told_wherever_claims_stand(
    one_seed: Path, tmp_path: Path
) -> None:
    note = "1 seed of 5: too few to decide"
    shutil.copy(one_seed / "runs.jsonl", tmp_path)

    few = reproduce("allocation", "--seeds", "1", "--jobs", "1", "--out", str(tmp_path))

    assert note in few
    assert "undecided" in few
    for name in ("report.html", "report.md"):
        assert note in (tmp_path / name).read_text("utf-8")

    enough = reproduce("allocation", "--jobs", "1", "--out", str(tmp_path))

    assert "too few" not in enough
    assert "undecided" not in enough
    for name in ("report.html", "report.md"):
        assert "too few" not in (tmp_path / name).read_text("utf-8")


def test_without_ray_its_own_extra_is_named_and_no_folder_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "penstock.experiments.pool", raising=False)
    out = tmp_path / "out"

    said = CliRunner().invoke(group, ["reproduce", "noise", "--ray", "local", "--out", str(out)])

    assert said.exit_code == 1
    assert "needs the package ray" in said.output
    assert "pip install 'penstock[ray]'" in said.output
    assert not out.exists()


def test_an_experiment_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    from penstock.errors import ConfigError

    with pytest.raises(ConfigError, match="'nois' is not an experiment: choose from policies"):
        reproduce("nois", "--out", str(tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    arguments: list[Any] = [sys.executable, "-m", "penstock.cli.main", "reproduce"]
    arguments += ["allocation", "--seeds", "1", "--jobs", "2", "--out", tmp_path]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    runs = tmp_path / "runs.jsonl"
    while process.poll() is None and not (runs.exists() and runs.stat().st_size):
        time.sleep(0.01)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Stopped." in said
    assert "Traceback" not in said
    kept = len(runs.read_text("utf-8").splitlines())
    assert kept > 0

    after = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert f"{25 - kept} runs made" in after.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for children in /proc")
def test_ctrl_c_while_the_workers_start_is_as_quiet(tmp_path: Path) -> None:
    arguments: list[Any] = [sys.executable, "-m", "penstock.cli.main", "reproduce"]
    arguments += ["allocation", "--seeds", "1", "--jobs", "2", "--out", tmp_path]
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    # Two workers and what tracks their resources, which ignores SIGINT.
    while process.poll() is None and sum(map(handles_sigint, children_of(process.pid))) < 2:
        time.sleep(0.01)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Stopped." in said
    assert "Traceback" not in said
