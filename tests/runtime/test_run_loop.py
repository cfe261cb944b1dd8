"""A signal ends a command's event loop wherever it comes, and nothing half-built complains."""

import signal
import subprocess
import sys

import pytest

AT_EACH_LINE = """
import asyncio, gc, signal, sys
from penstock.cli.options import sigterm_as_ctrl_c
from penstock.runtime.uninterrupted import run_loop

def lines(frame, event, _arg):
    global left
    left -= event == "line"
    if event == "line" and not left:
        signal.raise_signal(int(sys.argv[1]))
    return lines

def calls(frame, _event, _arg):
    return lines if "/asyncio/" in frame.f_code.co_filename else None

async def work():
    await asyncio.sleep(0)

gc.freeze()
place, left = 0, 0
while left <= 0:  # until a run has fewer lines than that
    place = left = place + 1
    with sigterm_as_ctrl_c():
        try:
            sys.settrace(calls)
            run_loop(work)
            sys.settrace(None)
            assert left > 0, f"the signal at line {place} was lost"
        except KeyboardInterrupt:
            sys.settrace(None)
    gc.collect()
print(place)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there is no mask of signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_loop_at_each_line_of_its_start_run_and_end(
    number: signal.Signals,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_EACH_LINE, str(int(number))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 100  # asyncio's own lines
