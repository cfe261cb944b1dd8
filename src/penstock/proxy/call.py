"""What the scheduler needs of a request body; everything else goes by untouched."""

from dataclasses import dataclass
from typing import Any

from penstock.calls.call import prompts_of
from penstock.proxy.declined import Declined
from penstock.proxy.routes import Route
from penstock.wire import jsonio
from penstock.wire.endpoint import Kind

CHARACTERS_PER_TOKEN = 4
"""Rough, and only used for limits on input tokens until the reply states the real count."""

IMAGE_TOKENS = 1000
"""What an image, a file or a sound is taken for; its bytes say nothing about its tokens."""

_LIMIT_FIELDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_MAX_MODEL_LENGTH = 256
_SURELY_TEXT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Call:
    """One request's body, as far as we read it. The text itself is not kept.

    Attributes:
        model: as the body names it.
        stream: whether the reply comes as server-sent events.
        max_tokens: the caller's cap on the reply, or None.
        prompt_tokens: a rough count.
        replies: how many are asked for, `n` for each prompt; they cost as many times the tokens.

    """

    model: str
    stream: bool
    max_tokens: int | None
    prompt_tokens: int
    replies: int = 1


def parse(route: Route, body: bytes) -> tuple[Call, dict[str, Any]]:
    """Read a body; also return the parsed object, for a predictor to look at.

    Raises:
        Declined: 400, with the field at fault.

    """
    try:
        data = jsonio.loads(body)
    except ValueError:
        raise Declined(
            400, "invalid_json", "The body is not valid JSON: was it cut short or encoded twice?"
        ) from None
    if type(data) is not dict:
        raise Declined(400, "invalid_json", "The body must be a JSON object.")
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise Declined(400, "invalid_model", "model must be a non-empty string.")
    if len(model) > _MAX_MODEL_LENGTH:
        raise Declined(
            400,
            "invalid_model",
            f"model must not be longer than {_MAX_MODEL_LENGTH} characters.",
        )
    if not _is_text(model):
        raise Declined(400, "invalid_model", "model holds half a character (a lone surrogate).")
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _wrong_type("stream", "true or false")
    prompt = data.get(route.prompt_field)
    if route.prompt_field == "messages" and not isinstance(prompt, list):
        raise _wrong_type("messages", "a list of messages")
    if prompt is None:
        prompt = ""
    prompts = prompts_of(prompt) if route.kind is Kind.COMPLETIONS else 1
    call = Call(
        model,
        bool(stream) and route.streams,
        _limit(data),
        _prompt_tokens(body, data, prompt),
        (_positive(data, "n") or 1) * prompts,
    )
    return call, data


def _limit(data: dict[str, Any]) -> int | None:
    for field in _LIMIT_FIELDS:
        value = _positive(data, field)
        if value is not None:
            return value
    return None


def _positive(data: dict[str, Any], field: str) -> int | None:
    value = data.get(field)
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise _wrong_type(field, "a whole number, 1 or more")
    return value


def _is_text(value: str) -> bool:
    """Say whether UTF-8 can write it: it goes into logs and metrics."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong_type(field: str, rule: str) -> Declined:
    return Declined(400, "invalid_type", f"{field} must be {rule}.")


def _prompt_tokens(body: bytes, data: dict[str, Any], prompt: Any) -> int:
    """Return roughly how many tokens go in."""
    if len(body) < _SURELY_TEXT_BYTES:
        # Nearly all of a small body is its prompt: not worth a walk through it.
        return 1 + len(body) // CHARACTERS_PER_TOKEN
    return 1 + _weigh(prompt) + _weigh(data.get("system")) + _weigh(data.get("instructions"))


def _weigh(value: Any) -> int:
    """Return roughly how many tokens a prompt holds; iterative, as depth is the caller's choice."""
    if isinstance(value, str):
        return len(value) // CHARACTERS_PER_TOKEN
    total = 0
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, list):
            # A list of token numbers (completions, embeddings) is its own count.
            if item and isinstance(item[0], int):
                total += len(item) * CHARACTERS_PER_TOKEN
            else:
                stack.extend(item)
        elif isinstance(item, dict):
            total += _weigh_part(item, stack)
    return total // CHARACTERS_PER_TOKEN


def _weigh_part(item: dict[str, Any], stack: list[Any]) -> int:
    text = item.get("text")
    if isinstance(text, str):
        return len(text)
    content = item.get("content")
    if content is not None:
        stack.append(content)
        return 0
    kind = item.get("type")
    if isinstance(kind, str) and kind.endswith(("image_url", "image", "audio", "file", "document")):
        return IMAGE_TOKENS * CHARACTERS_PER_TOKEN
    return 0
