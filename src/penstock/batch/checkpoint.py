"""What of a batch is done, in SQLite, so that a killed run goes on where it was.

A result is written to its file first, then the line's number and the file's new length are
committed in one transaction. On resume the files are cut to the committed lengths: what was
written but not committed is forgotten and its request repeated. So no line is lost and none
stands twice, and only calls that were in flight are repeated.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from penstock.batch.lines import ANSWER_BEGINS, BatchError, Inspection
from penstock.private_file import NotPrivate, likely_cause, make_private_folder, open_private
from penstock.wire.usage import Usage

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    version INTEGER, fingerprint TEXT, requests INTEGER, started_unix_s REAL,
    out_bytes INTEGER, error_bytes INTEGER, succeeded INTEGER, failed INTEGER,
    prompt_tokens INTEGER, output_tokens INTEGER
);
CREATE TABLE IF NOT EXISTS done (line INTEGER PRIMARY KEY);
"""
_COLUMNS = 10


@dataclass(slots=True)
class Totals:
    """What has been done so far, resumed runs included."""

    succeeded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def done(self) -> int:
        """Lines that have an answer or a final failure."""
        return self.succeeded + self.failed


class Checkpoint:
    """The checkpoint of one batch, and its two answer files. One process at a time.

    Args:
        path: the SQLite file.
        out: the output file.
        errors: the error file.
        inspection: of the input, which must be the one that the checkpoint was made for.
        now_unix_s: when the run starts, seconds since 1970; kept on resume.

    Raises:
        BatchError: it belongs to another input, another process runs it, or an answer file
            exists although the run is new, or is not as the checkpoint left it.

    """

    def __init__(
        self, path: Path, out: Path, errors: Path, inspection: Inspection, *, now_unix_s: float
    ) -> None:
        """Open or create it, and cut the answer files to what was committed."""
        self.path = path
        self.requests = inspection.requests
        self.last_line = inspection.last_line
        with ExitStack() as closing_on_error:
            self._database = closing_on_error.enter_context(closing(_open(path)))
            with _writable(path):
                self._begin_or_go_on(out, errors, inspection, now_unix_s, closing_on_error)
            closing_on_error.pop_all()

    def _begin_or_go_on(
        self,
        out: Path,
        errors: Path,
        inspection: Inspection,
        now_unix_s: float,
        closing_on_error: ExitStack,
    ) -> None:
        row = self._database.execute("SELECT * FROM run").fetchone()
        if row is None:
            row = self._begin(out, errors, inspection, now_unix_s)
        _must_belong(self.path, row, inspection)
        _, _, _, self.started_unix_s, out_bytes, error_bytes, *totals = row
        self.totals = Totals(*totals)
        self._out = closing_on_error.enter_context(_cut(out, out_bytes))
        self._errors = closing_on_error.enter_context(_cut(errors, error_bytes))
        self._bytes: dict[BinaryIO, int] = {self._out: out_bytes, self._errors: error_bytes}
        self._done = bytearray(inspection.last_line // 8 + 1)
        lines = "SELECT line FROM done WHERE line BETWEEN 1 AND ?"
        for (line,) in self._database.execute(lines, (inspection.last_line,)):
            self._done[line >> 3] |= 1 << (line & 7)

    @classmethod
    def rewrite(
        cls,
        path: Path,
        inspection: Inspection,
        lines: Iterable[int],
        totals: Totals,
        *,
        out_bytes: int,
        error_bytes: int,
        now_unix_s: float,
    ) -> None:
        """Write anew, in one transaction, what is done; see `repair`.

        Raises:
            BatchError: it belongs to another input, or another process runs it.

        """
        with closing(_open(path)) as database, _writable(path):
            row = database.execute("SELECT * FROM run").fetchone()
            if row is not None:
                _must_belong(path, row, inspection)
            started_unix_s = now_unix_s if row is None else row[3]
            counts = (totals.succeeded, totals.failed, totals.prompt_tokens, totals.output_tokens)
            database.execute("BEGIN")
            database.execute("DELETE FROM run")
            database.execute("DELETE FROM done")
            database.executemany("INSERT INTO done VALUES (?)", ((line,) for line in lines))
            _insert(database, inspection, started_unix_s, (out_bytes, error_bytes, *counts))
            database.execute("COMMIT")

    def is_done(self, line: int) -> bool:
        """Return whether a line has its answer."""
        return bool(self._done[line >> 3] & (1 << (line & 7)))

    def succeeded(self, line: int, answer: bytes, usage: Usage) -> None:
        """Write an answer; it is safe when this returns.

        Raises:
            BatchError: the disk takes no more; what was committed is safe.

        """
        with self._written(self._out, line, answer):
            self.totals.succeeded += 1
            self.totals.prompt_tokens += usage.prompt_tokens or 0
            self.totals.output_tokens += usage.output_tokens or 0

    def failed(self, line: int, answer: bytes) -> None:
        """Write a final failure; it is safe when this returns.

        Raises:
            BatchError: the disk takes no more; what was committed is safe.

        """
        with self._written(self._errors, line, answer):
            self.totals.failed += 1

    @contextmanager
    def _written(self, file: BinaryIO, line: int, answer: bytes) -> Iterator[None]:
        """Write the answer; the block counts it, and then it is committed."""
        with _writable(f"{file.name} or {self.path}"):
            _append(file, answer)
            self._bytes[file] += len(answer)
            yield
            self._commit(line)

    def close(self) -> None:
        """Close the files."""
        self._out.close()
        self._errors.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _begin(
        self, out: Path, errors: Path, inspection: Inspection, now_unix_s: float
    ) -> tuple[object, ...]:
        """Begin a new run; return its row of the table `run`."""
        for file in (out, errors):
            if file.exists() and file.stat().st_size:
                raise BatchError(
                    f"{file} exists and {self.path} knows nothing of it: it would be "
                    "overwritten; move it away or name another file. Is the checkpoint lost, add "
                    "--repair: it is made anew from the answers"
                )
        self._database.execute("BEGIN")
        row = _insert(self._database, inspection, now_unix_s, (0,) * 6)
        self._database.execute("COMMIT")
        return row

    def _commit(self, line: int) -> None:
        totals = self.totals
        self._database.execute("BEGIN")
        self._database.execute("INSERT INTO done VALUES (?)", (line,))
        self._database.execute(
            "UPDATE run SET out_bytes=?, error_bytes=?, succeeded=?, failed=?, "
            "prompt_tokens=?, output_tokens=?",
            (
                *self._bytes.values(),
                totals.succeeded,
                totals.failed,
                totals.prompt_tokens,
                totals.output_tokens,
            ),
        )
        self._database.execute("COMMIT")
        self._done[line >> 3] |= 1 << (line & 7)


@contextmanager
def _writable(what: Path | str) -> Iterator[None]:
    """Say in words that what is written in this block cannot be."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise BatchError(
            f"{what} cannot be written any more ({error}): is the disk full? What has been "
            "written is safe: make room and run the same command to go on"
        ) from error


def _insert(
    database: sqlite3.Connection,
    inspection: Inspection,
    started_unix_s: float,
    counts: tuple[int, ...],
) -> tuple[object, ...]:
    """Write the row of the table `run`, and return it."""
    row = (VERSION, inspection.fingerprint, inspection.requests, started_unix_s, *counts)
    marks = ",".join("?" * len(row))
    database.execute(f"INSERT INTO run VALUES ({marks})", row)  # noqa: S608 - marks only
    return row


def _must_belong(path: Path, row: Sequence[object], inspection: Inspection) -> None:
    version, fingerprint, *numbers = row
    if len(row) != _COLUMNS or not all(isinstance(n, int | float) and n >= 0 for n in numbers):
        raise _damaged(path, "its numbers are none")
    if version != VERSION or fingerprint != inspection.fingerprint:
        raise BatchError(
            f"{path} is the checkpoint of another input file (or of a changed one): "
            "name another --checkpoint, or remove it to start again"
        )


def _open(path: Path) -> sqlite3.Connection:
    try:
        make_private_folder(path.parent)
        if path.exists() and not path.is_file():
            raise BatchError(f"{path} is no regular file: what is done must be kept")
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))  # SQLite's own would be 0644
        database = sqlite3.connect(path, isolation_level=None, timeout=0.5, check_same_thread=False)
    except NotPrivate as error:
        raise BatchError(str(error)) from None
    except (OSError, sqlite3.OperationalError) as error:
        raise BatchError(
            f"{path} cannot be made ({error}): is its folder one that may be written in?"
        ) from error
    try:
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing that it wrote. After a power cut an answer file may hold
        # less than what was committed; then the run refuses to go on (see `_cut` and `repair`).
        # Waiting for the disk after each answer would cost milliseconds each.
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(_SCHEMA)
        database.execute("BEGIN IMMEDIATE")
        database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        database.close()
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise BatchError(f"{path} cannot be written ({error}): is the disk full?") from error
        raise BatchError(f"{path} is in use: does another penstock run this batch?") from error
    except sqlite3.DatabaseError as error:
        database.close()
        raise _damaged(path, error) from error
    return database


def _damaged(path: Path, why: object) -> BatchError:
    return BatchError(
        f"{path} is no checkpoint of a batch ({why}): was another file named, or is it damaged? "
        "Then move it away and add --repair: it is made anew from the answers"
    )


def _cut(path: Path, length: int) -> BinaryIO:
    try:
        make_private_folder(path.parent)
        file = open(path, "a+b", buffering=0, opener=open_private)  # noqa: SIM115 - opener
    except NotPrivate as error:
        raise BatchError(str(error)) from None
    except OSError as error:
        raise BatchError(
            f"{path} cannot be written ({error.strerror}): {likely_cause(error)}"
        ) from error
    if path.is_fifo():
        file.close()
        raise BatchError(f"{path} is a pipe: answers must be safe where they are written")
    size = os.fstat(file.fileno()).st_size
    if size and not length and not _begins_an_answer(file):
        file.close()
        raise BatchError(
            f"{path} holds no answers of a batch, and would be overwritten: name another file, or "
            "move it away"
        )
    if size < length or not _ends_a_line(file, length):
        file.close()
        found = f"has {size} bytes" if size < length else f"does not end a line at byte {length}"
        raise BatchError(
            f"{path} {found}, but {length} bytes of whole lines were written: was it changed or "
            "moved, or was there a power cut? Put it back as it was; or add --repair, which keeps "
            "every whole answer in it and asks again, and pays again, for what is missing"
        )
    if size > length:
        file.truncate(length)
    return file  # unbuffered, so that a write is a write


def _begins_an_answer(file: BinaryIO) -> bool:
    """Return whether an answer begins there, or what a power cut leaves of one."""
    file.seek(0)
    begins = file.read(len(ANSWER_BEGINS))
    return ANSWER_BEGINS.startswith(begins) or begins.startswith(b"\0")


def _ends_a_line(file: BinaryIO, length: int) -> bool:
    """Return whether a line ends there; a power cut may leave zeros of the right length."""
    if length == 0:
        return True
    file.seek(length - 1)
    return file.read(1) == b"\n"


def _append(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
