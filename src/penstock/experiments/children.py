"""Penstock's own commands as processes of their own, on free ports and gone with the block."""

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from penstock.errors import PenstockError

START_LIMIT_S = 30.0
END_LIMIT_S = 10.0
_URL = re.compile(rb"http://127\.0\.0\.1:\d+")


class LiveError(PenstockError):
    """A process did not start or did not answer; the text says which, and what it said."""


@contextlib.contextmanager
def child(command: str, *arguments: str, addresses: int = 1) -> Iterator[list[str]]:
    """Run a command of penstock; yields the addresses on which it says that it listens.

    Raises:
        LiveError: it ended, or said too few of them in time.

    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.main", command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C is for us: we end the children in order.
            start_new_session=True,
        )
        try:
            yield _urls_of(process, command, output, addresses)
        finally:
            process.terminate()
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _urls_of(
    process: "subprocess.Popen[bytes]", command: str, output: IO[bytes], addresses: int
) -> list[str]:
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        output.seek(0)
        text = output.read()
        # Whole lines only: a port must not be read before its last digit is there.
        found = _URL.findall(text[: text.rfind(b"\n") + 1])
        if len(found) >= addresses:
            return [url.decode() for url in found[:addresses]]
        if process.poll() is not None:
            raise LiveError(f"penstock {command} did not start: {text.decode(errors='replace')}")
        time.sleep(0.02)
    raise LiveError(f"penstock {command} said no address within {START_LIMIT_S:g} s")
