"""The command line is quick to answer and says what is missing."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from penstock.cli.group import COMMANDS, group
from penstock.errors import ConfigError


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_lists_every_command_without_loading_one() -> None:
    run = python(
        "import sys\n"
        "sys.argv = ['penstock', '--help']\n"
        "from penstock.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "heavy = {'aiohttp', 'numpy', 'pydantic', 'rich', 'openai', 'matplotlib', 'uvicorn'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )

    assert run.returncode == 0, run.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in run.stdout
    assert "LOADED []" in run.stdout


def test_python_m_penstock_is_the_same_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "penstock", "--version"], capture_output=True, text=True, check=True
    )

    assert run.stdout.startswith("penstock")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(group, [command, "--help"], prog_name="penstock")

    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: penstock {command} ")
    assert len(result.output.splitlines()) > 5


def test_a_command_whose_packages_are_missing_says_which_extra_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def late() -> None:
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")

    monkeypatch.setitem(sys.modules, "penstock.cli.serve", SimpleNamespace(command=late))

    result = CliRunner().invoke(group, ["serve"])

    assert result.exit_code == 1
    assert "needs the package uvicorn" in result.output
    assert "pip install 'penstock[proxy]'" in result.output


def test_a_demo_without_its_sdk_says_so_before_it_starts_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    for name in [name for name in sys.modules if name.startswith("penstock.experiments.demo")]:
        monkeypatch.delitem(sys.modules, name)

    result = CliRunner().invoke(group, ["demo"])

    assert result.exit_code == 1
    assert result.output.startswith("Error: `penstock demo` needs the package openai")


def test_a_missing_module_of_our_own_stays_a_loud_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "penstock.cli.serve", None)

    result = CliRunner().invoke(group, ["serve"])

    assert isinstance(result.exception, ModuleNotFoundError)


def test_without_click_the_command_says_what_to_install() -> None:
    run = python(
        "import sys\nsys.modules['click'] = None\nfrom penstock.cli.main import main\nmain()\n"
    )

    assert run.returncode == 1
    assert "pip install 'penstock[proxy]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_unknown_command_is_refused_by_name() -> None:
    result = CliRunner().invoke(group, ["sevre"])

    assert result.exit_code == 2
    assert "sevre" in result.output


def test_a_mistake_in_the_configuration_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise ConfigError("limits.rpm=-1: must be above 0")

    monkeypatch.setitem(sys.modules, "penstock.cli.serve", SimpleNamespace(command=broken))

    result = CliRunner().invoke(group, ["serve"])

    assert result.exit_code == 1
    assert result.output == "Error: limits.rpm=-1: must be above 0\n"


def test_a_command_that_ctrl_c_ends_says_so_with_status_130(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "penstock.cli.fit", SimpleNamespace(command=stopped))

    result = CliRunner().invoke(group, ["fit"])

    assert (result.exit_code, result.output) == (130, "\nStopped before its end.\n")


def test_the_version_is_the_installed_one(root: Path) -> None:
    result = CliRunner().invoke(group, ["--version"])

    assert result.output == "penstock 0.1.0\n"
    assert 'version = "0.1.0"' in (root / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["health", "--admin", "http://127.0.0.1:9"], "no sidecar's admin listener at"),
        (["pin", "open", "--window", "4"], "Missing option '--for'"),
        (["promote", "wider", "-c", "a-file-that-is-not-there.toml"], "does not exist"),
    ],
)
def test_what_went_wrong_is_folded_at_words_in_a_terminal(words: list[str], says: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "penstock", *words]
    run = subprocess.Popen(command, stderr=theirs, env=os.environ | {"COLUMNS": "40"})
    os.close(theirs)
    run.wait(60)
    told = os.read(ours, 65536).decode()
    os.close(ours)

    *_, error = re.split(r"^(?=Error: )", told, flags=re.MULTILINE)
    assert says in " ".join(error.split())
    assert all(len(line) <= 40 or " " not in line.strip() for line in error.splitlines())
