"""From a call to its reply: drawn from the request itself, or said by a header or a script."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import orjson

from penstock.sim.mock import words
from penstock.sim.mock.call import BodyError, MockCall, MockReply, StatedUsage
from penstock.sim.mock.script import ScriptedReply

_PIECE = re.compile(r"\s*\S+|\s+\Z")
_MOST_THINKING = 24
_USAGE = ("prompt_tokens", "output_tokens", "cached_tokens")


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What will be answered.

    Attributes:
        call: as asked, or with the tool that the script calls.
        reply: to it.
        fault: that the script wants; empty for none.

    """

    call: MockCall
    reply: MockReply
    fault: str = ""


def plan_reply(
    call: MockCall,
    path: str,
    headers: Mapping[str, str],
    *,
    seed: int,
    script: tuple[ScriptedReply, ...] = (),
) -> ReplyPlan:
    """Return the reply: as a header says, else as the script says, else as drawn.

    Raises:
        BodyError: a header that cannot be.

    """
    scripted = next((each for each in script if each.fits(path, call.body)), None)
    text = _content(headers.get("x-mock-content"))
    if text is None and scripted is not None:
        call, text = _as_scripted(call, scripted)
    elif text is not None:
        call = replace(call, tool=None, schema=None)
    thinking = scripted.thinking if scripted is not None and scripted.thinking else ""
    if call.thinks and not thinking:
        thinking = " ".join(words.reply_words(seed >> 7, 4 + seed % (_MOST_THINKING - 4)))
    room = call.max_tokens
    lead = words.count_tokens(thinking)
    if room is not None and lead >= room:
        thinking, lead = "", 0
    pieces, cut = _pieces(call, seed, headers, text, None if room is None else room - lead)
    stated = _usage(headers.get("x-mock-usage")) or (scripted.usage if scripted else None)
    reply = MockReply(
        f"{seed:016x}", pieces, cut, thinking=thinking, stated=stated or StatedUsage()
    )
    return ReplyPlan(call, reply, scripted.fault if scripted is not None and scripted.fault else "")


def _as_scripted(call: MockCall, scripted: ScriptedReply) -> tuple[MockCall, str | None]:
    """Return the call as the script wants it, and its reply's text; None if that is drawn."""
    if scripted.tool is not None:
        arguments = orjson.dumps(scripted.arguments or {}).decode()
        return replace(call, tool=(scripted.tool, {})), arguments
    if scripted.text is not None:
        return replace(call, tool=None, schema=None), scripted.text
    return call, None


def _pieces(
    call: MockCall, seed: int, headers: Mapping[str, str], text: str | None, room: int | None
) -> tuple[list[str], bool]:
    """Return a reply's tokens, and whether the cap cut it."""
    if text is not None and call.reply_tokens is None:
        pieces = _PIECE.findall(text)
        return (pieces, False) if room is None or len(pieces) <= room else (pieces[:room], True)
    tokens = _tokens(call, seed, headers.get("x-mock-output-tokens"))
    cut = room is not None and tokens > room
    if cut and room is not None:
        tokens = room
    return _drawn(call, seed, tokens), cut


def _tokens(call: MockCall, seed: int, wanted: str | None) -> int:
    """Return how many tokens the reply has: as its endpoint or a header says, else drawn."""
    if call.reply_tokens is not None:
        return call.reply_tokens
    if wanted is None:
        return words.drawn_tokens(seed)
    if not wanted.isdecimal():
        raise BodyError(f"x-mock-output-tokens: {wanted!r}: must be a whole number >= 0")
    return int(wanted)


def _drawn(call: MockCall, seed: int, tokens: int) -> list[str]:
    text_words = words.reply_words(seed, tokens)
    schema = call.tool[1] if call.tool is not None else call.schema
    if schema is None or not tokens:
        return [w if n == 0 else f" {w}" for n, w in enumerate(text_words)]
    # JSON has its own length; it is cut into as many pieces as the reply shall have tokens.
    text = orjson.dumps(words.sample_of(schema, text_words)).decode()
    bounds = [len(text) * n // tokens for n in range(tokens + 1)]
    return [text[a:b] for a, b in pairwise(bounds)]


def _content(header: str | None) -> str | None:
    """Return the text of a header: as it stands, or as a JSON string, which takes any letter."""
    if header is None or not header.startswith('"'):
        return header
    try:
        text = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise BodyError(
            f"x-mock-content: {header[:40]!r}: must be a JSON string: {error}"
        ) from None
    return str(text)


def _usage(header: str | None) -> StatedUsage | None:
    if header is None:
        return None
    try:
        parsed: Any = orjson.loads(header)
    except orjson.JSONDecodeError:
        parsed = None
    if (
        not isinstance(parsed, dict)
        or not set(parsed) <= set(_USAGE)
        or not all(type(count) is int and count >= 0 for count in parsed.values())
    ):
        raise BodyError(
            f"x-mock-usage: {header[:40]!r}: must be a JSON object of counts: {', '.join(_USAGE)}"
        )
    return StatedUsage(**parsed)
