"""What other configurations would have done lately: read from the log's end, in a process apart.

    python -m penstock.twin.shadow < question.json > answer.json

The question names the log, the policies and how much of the log to read; the answer is what the
dashboard shows. Direct calls, which is what a program without penstock does, are always asked.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.core.events import Arrived, Reconfigured
from penstock.errors import PenstockError
from penstock.log.format import LogRecord
from penstock.log.reader import read_tail
from penstock.twin.history import history_of
from penstock.twin.model import twin_of
from penstock.twin.policy import read_policy
from penstock.twin.whatif import plain, whatif, witnesses

DIRECT = "direct"
DIRECT_POLICY: Mapping[str, Any] = {
    "scheduler": {
        "allocation": "fifo",
        "ordering": "fifo",
        "overload": "always_admit",
        "capacity": "unlimited",
    }
}
_NICE = 19


def report(
    log: Path, policies: Mapping[str, Mapping[str, Any]], *, most_bytes: int, most_calls: int
) -> dict[str, Any]:
    """Return what the policies would have done with the log's latest traffic.

    Args:
        log: the decision log.
        policies: by name, each as a file for `penstock whatif` has it.
        most_bytes: how much of the log's end is read.
        most_calls: how many of the latest calls are looked at.

    Raises:
        PenstockError: the log cannot be read, or too little is in it.
        OSError: there is no such log.

    """
    history = history_of(_latest(list(read_tail(log, most_bytes)), most_calls))
    asked = {DIRECT: DIRECT_POLICY, **policies}
    read = {name: read_policy(table, where=name) for name, table in asked.items()}
    twin = twin_of(history)
    held = witnesses(history, twin)
    groups: dict[str, Any] = {}
    for name, policy in read.items():
        try:
            groups[name] = plain(whatif(history, twin, policy, held=held))
        except PenstockError as error:
            groups[name] = str(error)
    started = history.calls[0].request.arrived_at + history.started_unix_s
    return {
        "from_unix_s": started,
        "until_unix_s": history.until + history.started_unix_s,
        "calls": sum(call.outcome is not None for call in history.calls),
        "trusted": twin.check.passed,
        "because": list(twin.check.faults),
        "policies": groups,
    }


def _latest(records: Sequence[LogRecord], most_calls: int) -> Iterator[LogRecord]:
    """Yield what has happened since the last so many calls began to come, and the settings."""
    came = [place for place, record in enumerate(records) if isinstance(record.what, Arrived)]
    first = came[-most_calls] if len(came) > most_calls else 0
    for place, record in enumerate(records):
        if place >= first or isinstance(record.what, Reconfigured):
            yield record


def main() -> None:
    """Answer one question."""
    os.nice(_NICE)  # the sidecar's callers go first
    asked = json.load(sys.stdin)
    log, policies = Path(asked.pop("log")), asked.pop("policies")
    try:
        answer = report(log, policies, **asked)
    except (OSError, PenstockError) as error:
        answer = {"problem": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
