"""What every file of the house must be: small, at home anywhere, and honestly pinned."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = (
    "src", "tests", "docs", "paper", "examples", "benchmarks", "requirements", "ops", ".ci",
)  # fmt: skip
TEXT = {
    ".py", ".md", ".toml", ".txt", ".in", ".json", ".jsonl", ".csv", ".svg", ".cfg", ".sh", ".yml",
    "",
}  # fmt: skip
LINES_AT_MOST = 500
PROSE_AT_MOST = 120
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)

SOMEBODYS_FOLDER = re.compile(r"(?<![\w.~-])/(home|Users|root|work|workspace|mnt)/\w")


def files(root: Path) -> Iterator[Path]:
    """Walk the house's own text files in a stable order."""
    named = (file for file in root.iterdir() if file.name != ".git")  # a file in a git work tree
    yield from sorted(file for file in named if file.is_file() and file.suffix in TEXT)
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            ours = "__pycache__" not in file.parts and file.suffix in TEXT
            if file.is_file() and ours:
                yield file


def test_no_room_is_too_large(root: Path) -> None:
    lengths = {
        str(file.relative_to(root)): len(file.read_text().splitlines())
        for file in files(root)
        if file.suffix == ".py"
    }

    assert lengths
    assert {name: n for name, n in lengths.items() if n > LINES_AT_MOST} == {}


def test_no_line_of_prose_is_wider_than_its_reader(root: Path) -> None:
    wide = [
        f"{file.relative_to(root)}: {line[:40]}"
        for file in files(root)
        if file.suffix == ".md" and file.name != "api.md"  # made of signatures
        for line in FENCED.sub("", file.read_text()).splitlines()
        if len(line) > PROSE_AT_MOST and not line.lstrip().startswith(("|", "!["))
    ]

    assert wide == []


def test_a_class_name_stands_for_one_idea(root: Path) -> None:
    """But for the transports, which are one idea for two libraries."""
    found = Counter(
        node.name.lstrip("_")
        for file in sorted((root / "src").rglob("*.py"))
        if not file.name.startswith("httpx_transports")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    )

    assert found
    assert [name for name, times in found.items() if times > 1] == []


def test_no_file_knows_the_machine_it_was_written_on(root: Path) -> None:
    found = [
        f"{file.relative_to(root)}:{number}: {line.strip()[:100]}"
        for file in files(root)
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if SOMEBODYS_FOLDER.search(line)
    ]

    assert found == []


@pytest.mark.parametrize("folder", ["home", "root", "mnt", "Users"])
def test_a_machines_folder_would_be_noticed(folder: str) -> None:
    assert SOMEBODYS_FOLDER.search(f"open('/{folder}/ada/data.csv')")
    assert not SOMEBODYS_FOLDER.search(f"the tree's src/{folder}/data.csv")


def test_every_lock_pins_each_package_by_hash_and_names_no_address(root: Path) -> None:
    locks = sorted((root / "requirements").glob("*.txt"))

    assert [lock.stem for lock in locks] == [
        "bootstrap",
        "build",
        "dev",
        "engines",
        "examples",
        "fuzz",
        "image",
        "ray",
        "run",
        "site",
    ]
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text, lock.name
        for package in re.split(r"\n(?=[a-z0-9])", text.strip()):
            assert re.match(r"[a-z0-9.\-]+==\S+", package), f"{lock.name}: {package[:60]}"
            assert "--hash=sha256:" in package, f"{lock.name}: {package[:60]}"


def test_what_runs_in_a_demo_runs_in_the_tests_at_the_same_version(root: Path) -> None:
    def versions(name: str) -> set[str]:
        text = (root / "requirements" / f"{name}.txt").read_text()
        return set(re.findall(r"^([a-z0-9.\-]+==\S+)", text, flags=re.MULTILINE))

    assert versions("run") <= versions("dev")
