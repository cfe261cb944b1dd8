"""Recorded replies from parquet or JSON lines, and the lessons that they teach."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from penstock.core.rule import shown
from penstock.errors import ConfigError
from penstock.predict.features.call import CallFeatures
from penstock.predict.prior.folds import fold_of
from penstock.predict.train.row_files import read_table

_COLUMNS = ("prompt", "output_tokens", "route", "model", "max_tokens")
TOKENS_MAX = 10_000_000
"""No reply has more tokens; a larger count is a time stamp or bytes."""


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One row of a file, checked, its features not read yet.

    Attributes:
        prompt: the text.
        output_tokens: the real count.
        route: the caller's label; None derives one.
        model: the provider's model, or empty.
        max_tokens: most output tokens allowed; None for no cap.

    """

    prompt: str
    output_tokens: float
    route: str | None
    model: str
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """One row: a call's features and what its reply had.

    Attributes:
        call: read from the row's prompt, route, model and max_tokens.
        prompt: the text, for those that want to see it; never logged.
        output_tokens: the real count.
        read_s: how long reading the features took.

    """

    call: CallFeatures
    prompt: str
    output_tokens: float
    read_s: float


def read_replies(path: Path) -> list[RecordedReply]:
    """Read a file with `prompt` and `output_tokens`, and maybe `route`, `model`, `max_tokens`.

    Raises:
        ConfigError: a row lacks a prompt or a count, or the file is neither parquet nor JSONL.

    """
    return replies_of(read_rows(path))


def read_rows(path: Path) -> Iterator[DatasetRow]:
    """Yield a file's rows, checked. Memory does not grow.

    Raises:
        ConfigError: a row lacks a prompt or a count, the file is neither parquet nor JSONL, or it
            has no rows.

    """
    place = ""
    for place, fields in read_table(path, _COLUMNS):
        try:
            row = _checked(fields)
        except ValueError as error:
            raise ConfigError(f"{path}, {place}: {error}") from error
        yield row
    if not place:
        raise ConfigError(f"{path}: has no rows; is it the right file?")


def replies_of(
    rows: Iterable[DatasetRow], *, clock: Callable[[], float] = time.perf_counter
) -> list[RecordedReply]:
    """Read the features of rows, and take the time of each."""
    return [_reply(row, clock) for row in rows]


def _reply(row: DatasetRow, clock: Callable[[], float]) -> RecordedReply:
    begun = clock()
    call = CallFeatures.from_prompt(
        row.prompt, model=row.model, route=row.route, max_tokens=row.max_tokens
    )
    return RecordedReply(call, row.prompt, row.output_tokens, clock() - begun)


def _checked(fields: Mapping[str, Any]) -> DatasetRow:
    prompt, tokens = fields.get("prompt"), _token_count(fields.get("output_tokens"))
    if not isinstance(prompt, str):
        raise ValueError(
            f"`prompt` is {shown(prompt)}; it must be text: is the field there, under this name, "
            "in every row?"
        )
    if tokens is None:
        value = fields.get("output_tokens")
        raise ValueError(
            f"`output_tokens` is {shown(value)}; it must be a finite number from 0 to "
            f"{TOKENS_MAX:,}: {_likely_cause(value)}"
        )
    return DatasetRow(
        prompt,
        tokens,
        str(fields["route"]) if fields.get("route") else None,
        str(fields.get("model") or ""),
        _cap(fields.get("max_tokens")),
    )


def _cap(value: Any) -> int | None:
    """Return a row's cap; missing values (null, NaN) and numbers below 1 are none."""
    if value is None or value != value:
        return None
    cap = _finite(value)
    if cap is None:
        raise ValueError(
            f"`max_tokens` is {shown(value)}; it must be a finite number, or null where there is "
            f"no cap: {_likely_cause(value)}"
        )
    return int(cap) if cap >= 1 else None


def _finite(value: object) -> float | None:
    """Return a finite number as a float; None for all else, and truth values are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # 10**400; a signalling NaN
        return None
    return number if math.isfinite(number) else None


def _token_count(value: object) -> float | None:
    """Return a count of tokens, from 0 to `TOKENS_MAX`; None for what is none."""
    number = _finite(value)
    return number if number is not None and 0 <= number <= TOKENS_MAX else None


def _likely_cause(value: object) -> str:
    """Return what probably went wrong where a number was to be, as a question."""
    if value is None:
        return "is the field there, under this name, in every row?"
    if isinstance(value, bool):
        return "a truth value is no number; was another field taken for it?"
    if isinstance(value, str):
        return "was the number written in quotes?"
    if isinstance(value, int | float | Decimal):
        return "is it a missing value or a sum gone wrong, or something other than tokens?"
    return "was another field taken for it?"


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A recorded reply.

    Attributes:
        call: what was asked.
        log_tokens: logarithm of its output tokens per choice, at least 0.
        fold: equal for equal prompts, in 0 to FOLDS - 1.

    """

    call: CallFeatures
    log_tokens: float
    fold: int


def lesson(call: CallFeatures, output_tokens: float) -> Lesson:
    """Return the lesson that a recorded reply teaches."""
    return Lesson(call, math.log(max(1.0, output_tokens / call.choices)), fold_of(call))
