"""Reads decision logs again: for explanations, for yesterday's traffic, for exact replays."""

import io
from collections.abc import Callable, Iterable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

from penstock.core.events import Action, Arrived, Event, WindowMoved
from penstock.core.model import Request
from penstock.errors import PenstockError
from penstock.log.format import (
    ACTIONS,
    EVENTS,
    VERSION,
    Header,
    LoggedOutcome,
    LogRecord,
    decode,
    decode_fields,
)
from penstock.policies.registry import build_scheduler
from penstock.wire import jsonio

MOST_SAID = 400
"""Characters of what is wrong with a line: it quotes the line, which may be long."""


class LogError(PenstockError, ValueError):
    """A decision log that cannot be read; the text names the file, the line and the rule."""


def log_files(path: Path) -> list[Path]:
    """Return a log and its rotated elders, oldest first, as far as they exist."""
    elders = (
        (int(each.suffix[1:]), each)
        for each in path.parent.glob(f"{path.name}.*")
        if each.suffix[1:].isdigit()
    )
    files = [each for _, each in sorted(elders, reverse=True)]
    return [*files, path] if path.exists() else files


def read_log(
    path: Path | str, *, on_cut: Callable[[Path, int], object] | None = None
) -> Iterator[LogRecord]:
    """Yield a log's records in order, its rotated elders first. Memory does not grow.

    A last line that was cut by a crash is passed over; `on_cut` is told its file and number.
    Actions whose request arrived before the oldest file that is kept are passed over too: nothing
    is known of it any more.

    Raises:
        FileNotFoundError: there is no such log.
        LogError: a line that is no record, or a version that is not ours.

    """
    path = Path(path)
    files = log_files(path)
    if not files:
        raise FileNotFoundError(f"no decision log at {path}: was the service told to write one?")
    reader = _Reader(on_cut)
    for file in files:
        with file.open("rb") as lines:
            yield from reader.read(lines, file)


def read_tail(path: Path | str, most_bytes: int) -> Iterator[LogRecord]:
    """Yield the records in about the last `most_bytes` of a log, its newest elder included.

    Raises:
        FileNotFoundError: there is no such log.
        LogError: a line that is no record, or a version that is not ours.

    """
    files = log_files(Path(path))
    if not files:
        raise FileNotFoundError(f"no decision log at {path}: was the service told to write one?")
    reader = _Reader(None)
    left = [most_bytes - file.stat().st_size for file in files[-1:]]
    for file, most in zip(files[-2:], [*left, most_bytes][-len(files[-2:]) :], strict=True):
        if most > 0:
            yield from reader.read(io.BytesIO(_end_of(file, most)), file)


def _end_of(file: Path, most_bytes: int) -> bytes:
    """Return a file's last whole lines, after the header and the settings that hold for them."""
    size = file.stat().st_size
    if size <= most_bytes:
        return file.read_bytes()
    with file.open("rb") as lines, mmap(lines.fileno(), size, access=ACCESS_READ) as held:
        first = held.find(b"\n", size - most_bytes) + 1 or size
        header = max(0, held.rfind(b'{"penstock_decision_log"', 0, first))
        changed = held.rfind(b'"event":"reconfigured"', header, first)
        starts = [header] if changed < 0 else [header, held.rfind(b"\n", 0, changed) + 1]
        kept = [held[start : held.find(b"\n", start) + 1] for start in starts if start < first]
        return b"".join(kept) + held[first:]


def parse_log(
    lines: bytes,
    path: Path = Path("/decisions"),
    *,
    on_cut: Callable[[Path, int], object] | None = None,
) -> Iterator[LogRecord]:
    """Yield the records of a log that is in memory, as `/decisions` sends it; see `read_log`.

    Raises:
        LogError: a line that is no record, or a version that is not ours.

    """
    yield from _Reader(on_cut).read(io.BytesIO(lines), path)


def replayed(records: Iterable[LogRecord]) -> Iterator[tuple[float, list[Action], list[Action]]]:
    """Feed the recorded events to a fresh scheduler; yield (now, recorded, decided now).

    For one whole run: from its first event, with the settings of its header.

    Raises:
        LogError: the header has no settings, or the records are of several runs.

    """
    scheduler = None
    run = ""
    now = 0.0
    decided: list[Action] = []
    recorded: list[Action] = []
    for record in records:
        if scheduler is None:
            if record.header.settings is None:
                raise LogError("the log's header has no settings: nothing can decide again")
            scheduler = build_scheduler(record.header.settings)
            run = record.header.run
        elif record.header.run != run:
            raise LogError(f"records of two runs ({run}, {record.header.run}): replay one")
        if type(record.what) in _ACTION_KINDS:
            recorded.append(record.what)  # type: ignore[arg-type]
            continue
        if recorded or decided:
            yield now, recorded, decided
        now, recorded = record.now, []
        decided = scheduler.handle(record.what, now=now)  # type: ignore[arg-type]
    if recorded or decided:
        yield now, recorded, decided


_ACTION_KINDS = frozenset(ACTIONS.values())


class _Reader:
    """Keeps what later lines refer to: the header, and the requests that have not ended."""

    def __init__(self, on_cut: Callable[[Path, int], object] | None) -> None:
        self._on_cut = on_cut
        self._header: Header | None = None
        self._requests: dict[int, Request] = {}
        self._ended: int | None = None

    def read(self, lines: BinaryIO, file: Path) -> Iterator[LogRecord]:
        for number, line in enumerate(lines, 1):
            whole = line.endswith(b"\n")
            parsed = jsonio.loads_object(line) if whole else None
            at_end = not whole or (parsed is None and not lines.read(1))
            if at_end and (self._header is not None or not whole):
                # Cut by a crash; the next file, if any, starts anew.
                if self._on_cut is not None:
                    self._on_cut(file, number)
                return
            if parsed is None:
                raise LogError(f"{file}:{number} is no JSON object: is it a decision log?")
            try:
                record = self._record(parsed)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                raise LogError(f"{file}:{number}: {_said(error)[:MOST_SAID]}") from error
            if record is not None:
                yield record

    def _record(self, line: dict[str, Any]) -> LogRecord | None:
        if "penstock_decision_log" in line:
            self._take_header(line)
            return None
        if self._header is None:
            raise ValueError("the file does not start with a header")
        if "lost" in line:
            return None
        outcome = line.pop("outcome", None)
        now = float(line.pop("now"))
        what = self._action(line) if "action" in line else self._event(line)
        if what is None:
            return None
        read = None if outcome is None else decode(LoggedOutcome, outcome)
        record = LogRecord(self._header, now, what, read)
        if outcome is not None:
            self._ended = record.request_id
        return record

    def _take_header(self, line: dict[str, Any]) -> None:
        version = line.pop("penstock_decision_log")
        if version != VERSION:
            raise ValueError(f"version {version!r} of the format: this penstock reads {VERSION}")
        header: Header = decode(Header, {"version": version, **line})
        if self._header is None or header.run != self._header.run:
            self._requests.clear()
        self._header = header

    def _event(self, line: dict[str, Any]) -> Event | None:
        if self._ended is not None:  # kept until then, for what the event of its end led to
            self._requests.pop(self._ended, None)
            self._ended = None
        event: Event = decode(EVENTS[line.pop("event")], line)
        if isinstance(event, Arrived):
            self._requests[event.request.id] = event.request
        return event

    def _action(self, line: dict[str, Any]) -> Action | None:
        kind = ACTIONS[line.pop("action")]
        if kind is WindowMoved:
            return decode(kind, line)  # type: ignore[no-any-return]
        request = self._requests.get(line.pop("request_id"))
        if request is None:
            return None
        return kind(request=request, **decode_fields(kind, line))  # type: ignore[no-any-return]


def _said(error: Exception) -> str:
    """Return what is wrong with a line, in a reader's words rather than in Python's."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (
        str(error).replace(".__init__() missing", " lacks").replace("positional argument", "field")
    )
