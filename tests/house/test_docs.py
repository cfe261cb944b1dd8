"""The pages are true: their snippets run, their links lead somewhere, their help is current."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.house.pages import all_pages, anchors, blocks, links, script
from tests.packaging.environments import environment, needs

BIN = Path(sys.executable).parent
PAGES = all_pages(ROOT)
RUNNABLE = [page for page in PAGES if any(block.mark == "run" for block in blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


USUAL_PORTS = (8001, 8787, 8788)
"""Where the pages' mock and sidecar listen: the commands' defaults, which readers use."""
OWN_NETWORK = [
    "unshare",
    "--map-root-user",
    "--net",
    "bash",
    "-c",
    'ip link set lo up; exec "$@"',
    "-",
]


def is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return attempt.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def usual_ports() -> Iterator[list[str]]:
    """Return the words before a command that has the usual ports for itself.

    In a network of its own where the machine allows one; else once another checkout on this
    machine no longer uses them.
    """
    with contextlib.suppress(OSError):
        if subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False).returncode == 0:
            yield OWN_NETWORK
            return
    with (Path(tempfile.gettempdir()) / "penstock-usual-ports").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patience = 600
        while patience and not all(map(is_free, USUAL_PORTS)):
            time.sleep(0.1)
            patience -= 1
        yield []


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_a_reader_who_types_what_the_page_says_gets_through(
    page: Path, tmp_path: Path, environments: Path, usual_ports: list[str]
) -> None:
    assert needs(page), "say what the page needs: **Needs** `penstock[...]` ([install](...))"
    bin_ = environment(needs(page), environments)
    environ = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}

    run = subprocess.Popen(
        [*usual_ports, "bash", "-c", script(page)],
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = run.communicate(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):  # a page that is late leaves no server behind
            os.killpg(run.pid, signal.SIGKILL)

    assert run.returncode == 0, said[-4_000:]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_snippet_says_whether_it_is_run(page: Path) -> None:
    unmarked = [
        block.text.splitlines()[0]
        for block in blocks(page)
        if block.language in ("python", "sh", "toml")
        and not (block.mark in ("run", "shown") or re.fullmatch(r"[\w\-]+\.\w+", block.mark))
    ]

    assert unmarked == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)

    assert broken == []


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    reached = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}

    assert [name(p) for p in PAGES if "docs" in p.parts and p not in {index, *reached}] == []


def test_what_is_pasted_into_pages_is_what_the_code_says() -> None:
    pasted = [page for page in PAGES if "[[[cog" in page.read_text()]

    check = subprocess.run(
        [BIN / "cog", "--check", *pasted], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert ROOT / "docs/reference/cli.md" in pasted
    assert check.returncode == 0, check.stdout + check.stderr + "\nTo paste anew: make docs"
