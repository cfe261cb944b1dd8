"""What a request's body says that the scheduler wants to know; it is read once, for every door.

It is the provider's business to complain of a bad body: what is not understood counts as not said,
and is named in `problems`. What it names by an id is with one provider, in one account.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from penstock.calls.endpoint import Endpoint
from penstock.calls.form import FilePart
from penstock.core.model import LARGEST_ESTIMATE_TOKENS
from penstock.wire.jsonio import MOST_VALUES

BYTES_PER_TOKEN = 4
"""Rough: English text has about 4.4 bytes a token with today's vocabularies, Chinese about 4.2."""

IMAGE_TOKENS = 1000
"""What an image, a file or a sound is taken for; its bytes say nothing about its tokens."""

CHARS_PER_SPOKEN_S = 15.0
"""150 English words a minute."""

BYTES_PER_HEARD_S = 16_000.0
"""MP3 at 128 kbit/s; half of what telephones' WAV takes, four times what voice messages take."""

_IMAGES_OF = {"low": 272 / 1056, "high": 4160 / 1056, "hd": 4160 / 1056}
"""Output tokens of a quality, by those of medium (OpenAI's guide, as for the estimate)."""

MOST_NAME_CHARS = 256

MOST_TOKENS = 10_000_000
"""A reply or a cap above this is no length: no provider's context holds a tenth of it for output.
What is stated beyond it would only bend the sums that it enters."""

LARGEST = int(LARGEST_ESTIMATE_TOKENS)
"""All choices of all prompts together, or all that goes in: what is more counts as so much."""

MOST_CHOICES = 128
"""What OpenAI takes for `n`; it multiplies the estimate, so it must be bounded."""

MOST_PROMPTS = 2048
"""What OpenAI takes for the items of one body."""

_NO_PROMPT = frozenset(
    (
        "metadata",
        "model",
        "previous_response_id",
        "prompt_cache_key",
        "safety_identifier",
        "service_tier",
        "stream_options",
        "user",
    )
)
"""Fields that no model reads; whatever else is a text, a list or an object is a part of the prompt:
messages, system, instructions, tools, schemas."""
_MEDIA = ("image_url", "image", "audio", "video_url", "file", "document")


@dataclass(slots=True)  # not frozen: one is made a call, and freezing is most of the cost
class Facts:
    """Facts of one API call; no text of it.

    Attributes:
        model: as the body names it; empty if it does not.
        max_tokens: the most output tokens that all replies together may have; None if unlimited.
        replies: how many are asked for, `n` for each prompt.
        prompt_tokens: roughly, how many tokens go in.
        streams: whether the reply comes as server-sent events.
        units: how many of the endpoint's units the reply has: replies, images (of medium quality),
            seconds of sound.
        problems: fields that were not understood, with the rule; no value of them.

    """

    model: str = ""
    max_tokens: int | None = None
    replies: int = 1
    prompt_tokens: int = 0
    streams: bool = False
    units: float = 1.0
    problems: tuple[str, ...] = ()


def facts_of(endpoint: Endpoint, body: Mapping[str, Any]) -> Facts:
    """Return the facts of a parsed body. No body is too odd."""
    problems: list[str] = []
    replies = _replies(endpoint, body, problems)
    cap = _cap(endpoint, body, problems)
    stream = body.get("stream")
    if stream is not None and type(stream) is not bool:
        problems.append("stream must be true or false")
    streams = stream is True or body.get("stream_format") == "sse"
    return Facts(
        _model(body.get("model", endpoint.default_model), problems),
        None if cap is None else min(cap * replies, LARGEST),
        replies,
        min(weigh(body), LARGEST),
        streams and endpoint.streams,
        replies if endpoint.unit == "reply" else _units(endpoint, body, replies),
        tuple(problems) if problems else (),
    )


def _model(value: object, problems: list[str]) -> str:
    if not isinstance(value, str) or not value:
        problems.append("model must be a non-empty string")
        return ""
    if len(value) > MOST_NAME_CHARS:
        problems.append(f"model must not be longer than {MOST_NAME_CHARS} characters")
        return ""
    if not value.isascii():  # it goes into logs and metrics
        try:
            value.encode()
        except UnicodeEncodeError:
            problems.append("model holds half a character (a lone surrogate)")
            return ""
    return value


def _cap(endpoint: Endpoint, body: Mapping[str, Any], problems: list[str]) -> int | None:
    """Return the cap of one reply, the first that is said."""
    for field in endpoint.cap_fields:
        value = body.get(field)
        if value is None:
            continue
        cap = count_in(value)
        if cap is None:
            problems.append(f"{field} must be a whole number, 0 or more")
        elif cap > MOST_TOKENS:
            problems.append(f"{field} must be {MOST_TOKENS} at most")
        else:
            return cap
    return endpoint.default_cap


def _replies(endpoint: Endpoint, body: Mapping[str, Any], problems: list[str]) -> int:
    prompts = prompts_of(body.get(endpoint.prompts_field)) if endpoint.prompts_field else 1
    if "n" not in body and "best_of" not in body:
        return prompts
    choices = 1
    for field in ("n", "best_of"):
        value = body.get(field)
        if value is None:
            continue
        count = count_in(value)
        if count is None:
            problems.append(f"{field} must be a whole number, 1 or more")
        else:
            choices = max(choices, min(count, MOST_CHOICES))
    return choices * prompts


def _units(endpoint: Endpoint, body: Mapping[str, Any], replies: int) -> float:
    """Return how many images are asked for, or seconds of sound are spoken or heard."""
    if endpoint.unit == "image":
        quality = body.get("quality")
        return replies * (_IMAGES_OF.get(quality, 1.0) if isinstance(quality, str) else 1.0)
    if endpoint.unit == "spoken_s":
        text = body.get("input")
        chars = len(text) if isinstance(text, str) else 0
        return max(1.0, chars / CHARS_PER_SPOKEN_S)
    sound = body.get("file")
    size = sound.size_bytes if isinstance(sound, FilePart) else 0
    return max(1.0, size / BYTES_PER_HEARD_S)


def prompts_of(prompt: object) -> int:
    """Return how many prompts a completions body has; each gets as many replies as one would.

    A list of texts or of token lists is one prompt an item; a list of tokens is one prompt.
    """
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        return min(len(prompt), MOST_PROMPTS)
    return 1


def text_tokens(text: str) -> int:
    """Return roughly how many tokens a text has."""
    return 1 + _bytes_in(text) // BYTES_PER_TOKEN


def weigh(body: Mapping[str, Any]) -> int:
    """Return roughly how many tokens go in: the texts, names and lists that a model reads.

    Without recursion, as depth is the caller's choice, and of the first million values or so: a
    program's body may contain itself.
    """
    total = 0
    items = [value for field, value in body.items() if field not in _NO_PROMPT]
    for item in items:
        kind = type(item)
        if kind is str:
            total += _bytes_in(item)
        elif kind is FilePart:
            total += IMAGE_TOKENS * BYTES_PER_TOKEN
        elif kind is list:
            if item and type(item[0]) is int:  # a list of token numbers is its own count
                total += len(item) * BYTES_PER_TOKEN
            elif len(items) < MOST_VALUES:
                items.extend(item)
        elif kind is dict:
            if _is_media(item):
                total += IMAGE_TOKENS * BYTES_PER_TOKEN
            else:
                total += sum(map(len, item))
                if len(items) < MOST_VALUES:
                    items.extend(item.values())
    return 1 + total // BYTES_PER_TOKEN


def _is_media(item: dict[str, Any]) -> bool:
    kind = item.get("type")
    if type(kind) is not str or not kind.endswith(_MEDIA):
        return False
    source = item.get("source")  # Anthropic's documents may be plain text
    return type(source) is not dict or source.get("type") not in ("text", "content")


def _bytes_in(text: str) -> int:
    if not text.isascii():
        return len(text.encode(errors="replace"))
    if text.startswith("data:") and ";base64," in text[:100]:
        return IMAGE_TOKENS * BYTES_PER_TOKEN
    return len(text)


def count_of(text: str) -> int | None:
    """Return a text's whole number, 0 or above; None for all else.

    Python refuses to read more than 4300 digits, and raises; here 18 are a number.
    """
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


def count_in(value: object) -> int | None:
    """Return a whole number of JSON, 0 or above; None for all else: true, "7", 1.5 and NaN."""
    if type(value) is int:
        return value if value >= 0 else None
    if type(value) is float and value >= 0 and value.is_integer():  # 1e2; NaN and inf are none
        return int(value)
    return None


_FIELD = re.compile(
    r"(?:previous_response_id|conversation|container|(?:[a-z]+_)*file_ids?|vector_store_ids?"
    r"|(?:training|validation)_file)\Z"
)
_SIGNS = (
    b'"previous_response_id"',
    b'"conversation"',
    b'"container"',
    b"file_id",
    b'"vector_store_id',
    b'"item_reference"',
)
"""One stands in every body that refers to something; six searches take 8 to 18 us for 2 kB."""
_ID_OF_REPLY = re.compile(rb'"(?:id|container_id|file_id)"\s*:\s*"([A-Za-z0-9_.:-]{4,256})"')
MOST_IDS = 100
"""Of one body: what names more is read no further."""
MOST_ID_CHARS = 256


def may_refer(body: bytes) -> bool:
    """Return whether a JSON body may refer to anything; a scan, as most bodies do not."""
    return any(map(body.__contains__, _SIGNS))


def references_of(body: Mapping[str, Any]) -> list[str]:
    """Return the ids of what a parsed body refers to."""
    found: list[str] = []
    stack: list[Any] = [body]
    while stack and len(found) < MOST_IDS:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            for name, value in item.items():
                if isinstance(name, str) and _FIELD.match(name):
                    found.extend(islice(_ids(value), MOST_IDS))
                if isinstance(value, dict | list):
                    stack.append(value)
            if item.get("type") == "item_reference":
                found.extend(_ids(item.get("id")))
    return found


def _ids(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else (value,):
        name = each.get("id") if isinstance(each, dict) else each
        if isinstance(name, str) and 0 < len(name) <= MOST_ID_CHARS:
            yield name


def ids_in_reply(text: bytes) -> list[str]:
    """Return the ids that a reply, or the beginning of one, gives to what it made."""
    return [match[1].decode() for match in islice(_ID_OF_REPLY.finditer(text), MOST_IDS)]
