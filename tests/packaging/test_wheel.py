"""The wheel runs from an empty environment, with each extra for what the install page says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from penstock.cli.group import COMMANDS
from tests.packaging.environments import environment, extras, installed_mb

SIDECAR = '[[upstreams]]\nname = "a"\nbase_url = "http://127.0.0.1:9/v1"\nauth = "none"\n'
SCENARIO = (
    'seeds = [1]\n[provider]\nmodel = "slots"\nslots = 2\n'
    "[workload]\nrequests = 20\nrate_per_s = 1.0\n"
)
REPLY = '{"prompt": "Why?", "output_tokens": 10, "model": "m"}\n'
LINE = (
    '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", '
    '"body": {"model": "m", "messages": [{"role": "user", "content": "?"}]}}\n'
)
PROGRAM = (
    "import penstock\n"
    "penstock.configure(decision_log='decisions.jsonl')\n"
    "with penstock.sync_gate('m').admit(max_tokens=50) as slot:\n"
    "    slot.settle(penstock.Usage(output_tokens=30))\n"
)


def without_a_sidecar(command: str) -> str:
    """Return the command where no admin listener is: it comes as far as saying so."""
    return f"({command} --admin http://127.0.0.1:9 2>&1 || true) | grep 'no sidecar'"


def started(command: str) -> str:
    """Return a script that starts a server, waits until it says where it listens, and ends it."""
    wait = "until grep http said; do kill -0 $!; sleep 0.1; done"
    return f"{command} > said 2>&1 & {wait}; kill $!; wait $! || true"


FIRST_COMMANDS = {
    "proxy": {
        "serve": "penstock serve --check --config sidecar.toml",
        "reload": without_a_sidecar("penstock reload"),
        "promote": "(penstock promote a --config sidecar.toml 2>&1 || true) | grep 'has no .a'",
        "lift": without_a_sidecar("penstock lift a"),
        "pin": without_a_sidecar("penstock pin a --pause --for 1m"),
        "health": without_a_sidecar("penstock health"),
        "schema": "penstock schema config",
        "explain": "python program.py && penstock explain --window --log decisions.m.jsonl",
        "top": without_a_sidecar("penstock top --once"),
        "dashboard": started("penstock dashboard decisions.m.jsonl --port 0"),
        "replay": "penstock replay decisions.m.jsonl",
        "fit": "(penstock fit decisions.m.jsonl 2>&1 || true) | tee /dev/stderr | grep 'too few'",
        "whatif": "(penstock whatif decisions.m.jsonl --policy policy.toml 2>&1 || true) "
        "| grep 'too few'",
    },
    # Nobody listens on port 9: the line expires after a second.
    "batch": {
        "batch": "penstock batch in.jsonl --out out.jsonl --base-url http://127.0.0.1:9/v1 "
        "--deadline 1s --api-key-env NONE || grep batch_expired out.errors.jsonl"
    },
    "mock": {"mock": started("penstock mock --port 0")},
    "predict": {"predict": "penstock predict evaluate --test replies.jsonl"},
    "tokenizer": {
        "": "python -c 'from penstock.predict.features.text import load_tokenizer\n"
        "load_tokenizer()'"
    },
    "boosted": {"": "python -c 'import lightgbm, penstock'"},
    "experiments": {
        "simulate": "penstock simulate scenario.toml",
        "reproduce": "penstock reproduce --help",
    },
    "openai": {"": "python -c 'import openai, penstock; penstock.async_client()'"},
    "anthropic": {"": "python -c 'import anthropic, penstock; penstock.client()'"},
    "otel": {"": "OTEL_TRACES_EXPORTER=console python program.py | grep trace_id"},
    "all": {"demo": "penstock demo --help"},
    "ray": {"": "python -c 'import ray, penstock'"},
}


def table(page: Path) -> dict[str, tuple[str, int, int]]:
    """Return the install page's extras: what they are for, packages beside penstock, MB."""
    rows = re.findall(
        r"^\| `(\w+)` \| (.+) \| (\d+) \| (\d+) \|$", page.read_text(), flags=re.MULTILINE
    )
    return {name: (what, int(packages), int(mb)) for name, what, packages, mb in rows}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return a folder with the files that the first commands read."""
    (tmp_path / "sidecar.toml").write_text(SIDECAR)
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "replies.jsonl").write_text(REPLY * 40)
    (tmp_path / "in.jsonl").write_text(LINE)
    (tmp_path / "policy.toml").write_text("[scheduler]\nallocation = 'fifo'\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def run(script: str, bin_: Path, desk: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(desk)}
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=desk,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_install_page_knows_every_extra(root: Path) -> None:
    assert sorted(table(root / "docs" / "install.md")) == extras() == sorted(FIRST_COMMANDS)


def test_every_command_is_tried_with_the_extra_that_it_names(root: Path) -> None:
    page = table(root / "docs" / "install.md")
    for name, entry in COMMANDS.items():
        assert name in FIRST_COMMANDS[entry.extra], f"{name}: say how it is tried"
        assert f"`{name}`" in page[entry.extra][0], f"{name}: say it in docs/install.md"


@pytest.mark.slow
def test_without_an_extra_it_is_imported_and_its_command_says_what_is_missing(
    desk: Path, environments: Path
) -> None:
    bin_ = environment(["penstock"], environments)

    program = run("python -c 'import penstock; penstock.sync_gate'", bin_, desk)
    command = run("penstock", bin_, desk)

    assert program.returncode == 0, program.stderr
    assert command.returncode == 1
    assert command.stderr.rstrip().endswith("pip install 'penstock[proxy]'")


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(FIRST_COMMANDS))
def test_an_extra_brings_what_its_commands_need(
    extra: str, desk: Path, root: Path, environments: Path
) -> None:
    bin_ = environment([f"penstock[{extra}]"], environments)

    for command in FIRST_COMMANDS[extra].values():
        done = run(command, bin_, desk)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    _, packages, mb = table(root / "docs" / "install.md")[extra]
    infos = list(bin_.parent.glob("lib/python3*/site-packages/*.dist-info"))
    assert len(infos) - 1 == pytest.approx(packages, abs=3)
    assert installed_mb(bin_) == pytest.approx(mb, rel=0.2)
