"""Works off a batch of N lines with a provider that answers at once; prints N and its peak in kB.

Run: python -m tests.batch.peak N FOLDER
"""

import asyncio
import json
import re
import sys
from pathlib import Path

from penstock.batch.lines import BatchLine
from penstock.batch.reply import BatchReply
from penstock.batch.runner import Batch
from penstock.wire.usage import Usage
from tests.batch.files import checkpoint_of, request

ANSWER = BatchReply(200, "q", {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}, Usage(5, 3))


async def send(line: BatchLine, *, deadline_s: float | None) -> BatchReply:
    return ANSWER


async def work(source: Path) -> int:
    with checkpoint_of(source) as store:
        await Batch(source, store, send).run()
        return store.totals.done


def main(count: int, folder: Path) -> None:
    source = folder / "in.jsonl"
    with source.open("w") as file:
        for number in range(count):
            file.write(json.dumps(request(number, user="u" * 60)) + "\n")
    done = asyncio.run(work(source))
    # Not getrusage: a child's begins with its parent's peak.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(done, peak[1] if peak else "")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
