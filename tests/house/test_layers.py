"""The import contracts hold, and they would notice if they did not."""

import subprocess
import sys
from pathlib import Path

LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_house_keeps_its_import_contracts(root: Path) -> None:
    report = lint_imports(root)

    assert report.returncode == 0, report.stdout + report.stderr


def copy_with(folder: Path, root: Path, module: str, text: str) -> Path:
    """Copy the contracts and the source, and add one module."""
    (folder / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    for file in (root / "src").rglob("*.py"):
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text())
    target = folder / "src" / "penstock" / module
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return folder


def test_a_core_that_reads_the_clock_is_caught(root: Path, tmp_path: Path) -> None:
    house = copy_with(tmp_path, root, "core/hasty.py", "import time\n")

    report = lint_imports(house)

    assert report.returncode == 1
    assert "penstock.core.hasty -> time" in report.stdout


def test_an_import_that_points_up_is_caught(root: Path, tmp_path: Path) -> None:
    house = copy_with(tmp_path, root, "core/nosy.py", "import penstock.runtime\n")

    report = lint_imports(house)

    assert report.returncode == 1
    assert "penstock.core.nosy -> penstock.runtime" in report.stdout


def test_a_new_folder_must_be_given_its_place(root: Path, tmp_path: Path) -> None:
    house = copy_with(tmp_path, root, "attic/__init__.py", "")

    report = lint_imports(house)

    assert report.returncode == 1
    assert "attic" in report.stdout


def test_two_files_that_import_each_other_are_caught(root: Path, tmp_path: Path) -> None:
    house = copy_with(tmp_path, root, "wire/one.py", "import penstock.wire.other\n")
    (house / "src/penstock/wire/other.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import penstock.wire.one\n"
    )

    report = lint_imports(house)

    assert report.returncode == 1
    assert "No cycles are allowed in penstock.wire" in report.stdout
