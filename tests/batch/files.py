"""Batch files for the tests."""

import json
from pathlib import Path
from typing import Any

from penstock.batch.checkpoint import Checkpoint
from penstock.batch.lines import inspect


def request(number: int, **body: Any) -> dict[str, Any]:
    return {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body},
    }


def batch_file(folder: Path, count: int) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(request(n)) + "\n" for n in range(count)))
    return path


def checkpoint_of(source: Path) -> Checkpoint:
    folder = source.parent
    return Checkpoint(
        folder / "checkpoint",
        folder / "out.jsonl",
        folder / "errors.jsonl",
        inspect(source),
        now_unix_s=0.0,
    )


def lines_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids_in(path: Path) -> list[str]:
    return [line["custom_id"] for line in lines_in(path)]
