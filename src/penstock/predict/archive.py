"""Arrays and JSON in one file: versioned, checked, written whole."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import PenstockError
from penstock.private_file import make_private_folder, open_private

_MAX_BYTES = 64 * 1024 * 1024


class StateError(PenstockError, ValueError):
    """A saved state that cannot be used; the text says what is wrong and what to do."""


def pack(arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> bytes:
    """Return arrays and JSON as one compressed file with checksums."""
    buffer = io.BytesIO()
    text = np.frombuffer(_encoded(meta).encode(), np.uint8)
    np.savez_compressed(buffer, allow_pickle=False, meta=text, **arrays)
    return buffer.getvalue()


def _encoded(meta: dict[str, Any]) -> str:
    """Return JSON, written entry by entry: `json.dumps` of all at once holds up other threads.

    A state of 100 routes takes it 50 ms, in which no other thread gets to run.
    """
    parts = (f"{json.dumps(key)}: {_entries(value)}" for key, value in sorted(meta.items()))
    return "{" + ", ".join(parts) + "}"


def _entries(value: Any) -> str:
    return _encoded(value) if isinstance(value, dict) else json.dumps(value)


def unpack(path: Path, *, kind: str, version: int) -> tuple[dict[str, NDArray[Any]], Any]:
    """Return arrays and JSON of a file that `pack` made.

    Raises:
        StateError: it is damaged, too large, of another kind or version.
        OSError: it cannot be read.

    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise StateError(f"{path}: {size} bytes are no {kind} file; the limit is {_MAX_BYTES}")
    data = io.BytesIO(path.read_bytes())
    try:
        if not zipfile.is_zipfile(data):  # numpy would take it for a pickle, and advise to load it
            raise zipfile.BadZipFile("it does not end as one does")
        data.seek(0)
        with np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes())
    except Exception as error:  # zipfile, zlib and numpy's parser each raise what they like
        raise StateError(
            f"{path}: not a readable {kind} file ({error}): was it cut short? Remove it, and "
            "penstock starts without it"
        ) from error
    if not isinstance(meta, dict) or (meta.get("kind"), meta.get("version")) != (kind, version):
        found = meta if not isinstance(meta, dict) else (meta.get("kind"), meta.get("version"))
        raise StateError(
            f"{path}: holds {found!r}, this penstock reads {(kind, version)!r}: was it written "
            "by another version? Remove it, and penstock starts without it"
        )
    return arrays, meta


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a half.

    Its folder is made if there is none.

    Raises:
        OSError: it cannot be written.

    """
    make_private_folder(path.parent)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb", opener=open_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
