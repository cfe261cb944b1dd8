"""Makes a checkpoint anew from the answers on disk, when they and the checkpoint disagree.

A killed process leaves both as they should be. A power cut may not: the file system need not have
kept what the process wrote last, and may have kept the checkpoint's pages but not the answers'.
Then the answers are the truth: what is not among them is asked again.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.batch.checkpoint import Checkpoint, Totals
from penstock.batch.lines import (
    ID_PREFIX,
    BatchError,
    Inspection,
    custom_id_digest,
    parse_line,
    requests_in,
)
from penstock.calls.facts import count_of
from penstock.wire import jsonio
from penstock.wire.endpoint import Kind
from penstock.wire.usage import usage_of_object


@dataclass(slots=True)
class _WholeAnswers:
    """The whole answers at the beginning of a file.

    Attributes:
        length: bytes that they take; what follows is a half line or no answer.
        answers: how many there are.
        prompt_tokens, output_tokens: reported in them.

    """

    length: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


def repair(
    path: Path, source: Path, out: Path, errors: Path, inspection: Inspection, *, now_unix_s: float
) -> None:
    """Write into the checkpoint what the answer files hold; run before it is opened.

    Each file counts up to its first line that is no whole answer. Memory: 8 bytes a line.

    Args:
        path: the checkpoint; made if there is none.
        source: the input file.
        out: the output file.
        errors: the error file.
        inspection: of the input.
        now_unix_s: when the run starts, seconds since 1970, if the checkpoint does not say.

    Raises:
        BatchError: the answers are another input's; or as `Checkpoint` does.

    """
    names = array("Q", bytes(8 * (inspection.last_line + 1)))
    succeeded, failed = _whole_answers(out, names), _whole_answers(errors, names)
    _must_answer(source, out, names)
    Checkpoint.rewrite(
        path,
        inspection,
        (line for line, name in enumerate(names) if name),
        Totals(succeeded.answers, failed.answers, succeeded.prompt_tokens, succeeded.output_tokens),
        out_bytes=succeeded.length,
        error_bytes=failed.length,
        now_unix_s=now_unix_s,
    )


def _whole_answers(path: Path, names: "array[int]") -> _WholeAnswers:
    """Look through a file of answers, noting for each line of the input whose answer it has."""
    found = _WholeAnswers()
    if not path.exists():
        return found
    with path.open("rb") as file:
        for text in file:
            answer = jsonio.loads_object(text) if text.endswith(b"\n") else None
            line = _line_of(answer, len(names))
            if answer is None or line is None or names[line]:
                break
            names[line] = custom_id_digest(answer["custom_id"])
            found.length += len(text)
            found.answers += 1
            _count_tokens(answer, found)
    return found


def _line_of(answer: dict[str, Any] | None, lines: int) -> int | None:
    """Return which line of the input an answer is for; None if it is no answer of ours."""
    if answer is None or not isinstance(answer.get("custom_id"), str):
        return None
    number = str(answer.get("id", "")).removeprefix(ID_PREFIX)
    line = count_of(number) or 0
    return line if 0 < line < lines else None


def _count_tokens(answer: dict[str, Any], found: _WholeAnswers) -> None:
    response = answer.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    if isinstance(body, dict):
        kind = Kind.MESSAGES if body.get("type") == "message" else Kind.CHAT
        usage = usage_of_object(kind, body)
        found.prompt_tokens += usage.prompt_tokens or 0
        found.output_tokens += usage.output_tokens or 0


def _must_answer(source: Path, out: Path, names: "array[int]") -> None:
    for number, text in requests_in(source):
        if not names[number]:
            continue
        wanted = parse_line(number, text).custom_id
        if names[number] != custom_id_digest(wanted):
            raise BatchError(
                f"{out}, or its error file, answers something else than custom_id={wanted!r} on "
                f"line {number}: are they the answers to another input?"
            )
