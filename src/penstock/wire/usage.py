"""Token counts out of replies. Unknown is None, never 0."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from penstock.core.bounds import COUNTS, LARGEST_COUNT, has_sound_counts, whole_count
from penstock.wire.endpoint import Kind

UsageSource = Literal["reported", "estimated", "unknown"]


@dataclass(slots=True)
class Usage:
    """What a reply really took.

    Attributes:
        output_tokens: None if unknown; never 0 for "unknown".
        prompt_tokens: all input, cached tokens included; None if unknown.
        source: "reported" by the provider, "estimated" from the text, or "unknown".
        cached_tokens: how many of `prompt_tokens` were read from the provider's prompt cache; None
            if it does not say.
        counted_input_tokens: how many of `prompt_tokens` count towards the provider's limits on
            input tokens; None if all do.
        ignored: how many counts the provider stated that are none: below 0, absurd, no number.

    """

    output_tokens: int | None = None
    prompt_tokens: int | None = None
    source: UsageSource = "reported"
    cached_tokens: int | None = None
    counted_input_tokens: int | None = None
    ignored: int = 0


UNKNOWN = Usage(source="unknown")


def checked(usage: Usage | None, complain: Callable[[str, str, object], object]) -> Usage:
    """Return a program's usage, its counts whole numbers; unknown is what is no possible count.

    Args:
        usage: of a slot that is settled; None is unknown.
        complain: told "usage", what was wrong, and with which value.

    """
    if usage is None:
        return UNKNOWN
    if not isinstance(usage, Usage):
        complain("usage", "a slot was settled with what is no penstock.Usage", usage)
        return UNKNOWN
    if has_sound_counts(usage):
        return usage
    counts = {name: whole_count(getattr(usage, name)) for name in COUNTS}
    for name, count in counts.items():
        if count is None and getattr(usage, name) is not None:
            what = "a slot was settled with what is no count of tokens"
            complain("usage", what, getattr(usage, name))
    return replace(usage, **counts)  # type: ignore[arg-type]


_PROMPT_NAMES = ("prompt_tokens", "input_tokens")
_OUTPUT_NAMES = ("completion_tokens", "output_tokens")
_USAGE_BYTES = 4096
_USAGES_MOST = 8
"""Looked at from the end: one says it, and 64 kB of `{"usage":` took 0.6 s."""
DETAILS_NAMES = ("prompt_tokens_details", "input_tokens_details")
_CACHE_WRITES = ("cache_creation_input_tokens",)
_CACHE_READS = ("cache_read_input_tokens",)
_CACHE_HITS = ("prompt_cache_hit_tokens",)
"""DeepSeek's word for it."""
CACHED_NAME = "cached_tokens"
COUNT_NAMES = (*_PROMPT_NAMES, *_OUTPUT_NAMES, *_CACHE_WRITES, *_CACHE_READS, *_CACHE_HITS)

ENDS_BYTES = 1 << 16
"""How much is kept of each end of a reply that is too large to be kept. The vendors write the
usage after the text and the vectors; the head is for those who do not."""

_KEY = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')


class Ends:
    """The first and the last bytes of a large JSON reply, fed as it passes.

    Attributes:
        head: the first.

    """

    __slots__ = ("_tail", "head")

    def __init__(self) -> None:
        """Start at the beginning of a reply."""
        self.head = b""
        self._tail = bytearray()

    def feed(self, data: bytes) -> None:
        """Read one chunk."""
        if len(self.head) < ENDS_BYTES:
            self.head += data[: ENDS_BYTES - len(self.head)]
        self._tail += data[-ENDS_BYTES:]
        if len(self._tail) > 2 * ENDS_BYTES:
            del self._tail[:-ENDS_BYTES]

    @property
    def closed(self) -> bool:
        """Whether the reply ends as a JSON object does."""
        return self._tail.rstrip().endswith(b"}")

    def usage(self, kind: Kind) -> Usage:
        """Return the last usage that stands in the tail, else in the head, else unknown."""
        for end in (bytes(self._tail), self.head):
            for found in _objects(end):
                usage = usage_of_object(kind, {"usage": found})
                if usage.source != "unknown" or usage.ignored:
                    return usage
        return UNKNOWN


def _objects(text: bytes) -> Iterator[Any]:
    """Yield what stands after each `"usage":` outside of strings, the last one first."""
    for match in reversed(list(_KEY.finditer(text))[-_USAGES_MOST:]):
        rest = text[match.end() : match.end() + _USAGE_BYTES].decode(errors="replace")
        try:
            yield json.JSONDecoder().raw_decode(rest)[0]
        except (ValueError, RecursionError):
            continue


def usage_of_object(kind: Kind, reply: Mapping[str, Any]) -> Usage:
    """Return the usage in a parsed reply, or in the part of a stream that carries it."""
    said = reply.get("usage")
    if not isinstance(said, dict):  # as JSON has it; Mapping's check costs four times as much
        return UNKNOWN
    usage = _Counts(said)
    prompt = usage.first(_PROMPT_NAMES)
    output = usage.first(_OUTPUT_NAMES)
    if prompt is None and output is None:
        return Usage(source="unknown", ignored=usage.ignored) if usage.ignored else UNKNOWN
    if kind is Kind.EMBEDDINGS and output is None:
        output = 0  # embeddings write nothing: here 0 is a fact
    if prompt is None:
        return Usage(output, ignored=usage.ignored)
    if kind is Kind.MESSAGES:
        return _anthropic(usage, output, prompt)
    cached = usage.cached()
    # Groq's limits leave cached tokens out (console.groq.com/docs/prompt-caching).
    counted = prompt - cached if cached and "x_groq" in reply else None
    return Usage(output, prompt, "reported", cached, counted, usage.ignored)


def _anthropic(usage: "_Counts", output: int | None, fresh: int) -> Usage:
    """Return Anthropic's usage, whose `input_tokens` leave out all that went through the cache.

    Its limits on input tokens leave out what was read from the cache
    (platform.claude.com/docs/en/api/rate-limits, "Cache-aware ITPM").
    """
    written = usage.first(_CACHE_WRITES)
    read = usage.first(_CACHE_READS)
    counted = fresh + (written or 0)
    uncached = counted if read else None
    return Usage(output, counted + (read or 0), "reported", read, uncached, usage.ignored)


class _Counts:
    """The counts of one usage; those that are none are ignored, and counted."""

    __slots__ = ("_said", "ignored")

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said
        self.ignored = 0

    def first(self, names: tuple[str, ...], said: dict[str, Any] | None = None) -> int | None:
        """Return the first of these that is a count; None if none is."""
        for name in names:
            value = (self._said if said is None else said).get(name)
            if type(value) is int and 0 <= value <= LARGEST_COUNT:
                return value
            self.ignored += value is not None
        return None

    def cached(self) -> int | None:
        """Return how many were read from the cache; None if it is not said."""
        for name in DETAILS_NAMES:
            details = self._said.get(name)
            if isinstance(details, dict):
                return self.first((CACHED_NAME,), details)
        return self.first(_CACHE_HITS)
