"""Environments as a user makes them: empty, then penstock's wheel with what a page names."""

import fcntl
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from tests.conftest import ROOT

NEEDS = re.compile(r"^\*\*Needs\*\* (.+?) \(\[install\]", flags=re.MULTILINE)
UV = Path(sys.executable).with_name("uv")


def needs(page: Path) -> tuple[str, ...]:
    """Return what a page says that it needs, as requirements; the first is penstock itself."""
    line = NEEDS.search(page.read_text(encoding="utf-8"))
    return tuple(re.findall(r"`([^`]+)`", line[1])) if line else ()


def environment(requirements: Sequence[str], place: Path) -> Path:
    """Return the `bin` of a virtual environment with just these requirements and their own.

    Versions are those that the project is tested with. Processes may ask for the same one at
    the same time: it is made once in each `place`.

    Raises:
        subprocess.CalledProcessError: they cannot be installed; its `stderr` says why.

    """
    ours = f"{requirements[0]} @ {built_wheel(place).as_uri()}"
    home = place / sha256(" ".join(requirements).encode()).hexdigest()[:12]
    with _alone(home.with_suffix(".lock")):
        if not (home / "made").exists():
            _run([UV, "venv", "--quiet", "--python", sys.executable, home])
            # The largest set, which holds all others but LiteLLM's.
            locked = "examples.txt" if "litellm" in requirements else "ray.txt"
            lock = ROOT / "requirements" / locked
            install: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", home]
            _run([*install, "--constraint", lock, ours, *requirements[1:]])
            _share_bytecode(next(home.glob("lib/python3*/site-packages")), place / "bytecode")
            (home / "made").touch()
    return home / "bin"


def _share_bytecode(packages: Path, store: Path) -> None:
    """Let it use, and add to, what this and other environments have compiled of its files.

    Alone, each would take seconds of CPU. Python believes bytecode only if it is of a file of the
    same time and size, and imports none without its file.
    """
    examples = ROOT.glob(".venv-examples/lib/python3*/site-packages")
    compiled = [Path(sysconfig.get_path("purelib")), *examples]
    for folder, _, files in os.walk(packages):
        if any(file.endswith(".py") for file in files):
            inside = Path(folder).relative_to(packages)
            those = next((each for each in compiled if (each / inside).is_dir()), store)
            shared = those / inside / "__pycache__"
            shared.mkdir(parents=True, exist_ok=True)
            Path(folder, "__pycache__").symlink_to(shared)


def built_wheel(place: Path) -> Path:
    """Return the wheel of this checkout, built into `place` by the pinned backend."""
    folder = place / "dist"
    with _alone(place / "dist.lock"):
        if not list(folder.glob("*.whl")):
            _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder])
    return next(folder.glob("*.whl"))


def installed_mb(python_bin: Path) -> float:
    """Return the size of what the environment holds beyond Python itself, in MB."""
    packages = next(python_bin.parent.glob("lib/python3*/site-packages"))
    files = (f for f in packages.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return sum(file.stat().st_size for file in files) / 1e6


def extras() -> list[str]:
    """Return the names of the extras that users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(project["optional-dependencies"].keys() - {"dev"})


def _run(command: Sequence[str | Path]) -> None:
    environ = {**os.environ, "UV_SYSTEM_CERTS": "1"}
    environ.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
