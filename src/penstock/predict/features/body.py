"""What a request body says about its reply: OpenAI's three shapes and Anthropic's one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CAP_KEYS: Final = (
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tokens_to_sample",
)
"""Names of the output cap, newest first."""
_SYSTEM = ("system", "developer")
_CHOICES_MAX = 128  # what OpenAI allows; it multiplies the estimate, so it must be bounded
_PROMPTS_MAX = 2048  # of a completions body; our bound, the providers' are lower
_MAX_ITEMS = 200  # of a long conversation, only so many last items are looked at


@dataclass(slots=True)
class BodyFacts:
    """A body taken apart. Lives for one prediction: it holds the text, nothing else does.

    Attributes:
        system: the system, developer and instruction texts, joined.
        last_user: the text of the last turn that is the user's or a tool's.
        history: the texts of all other turns.
        history_chars: characters of those.
        replies: how many assistant turns the conversation has.
        reply_chars: characters of the last assistant turn; 0 without one.
        turns: all turns.
        images: how many images, files and audio clips.
        tool_results: how many results of tools the conversation carries.
        tools: names of the tools on offer.
        tool_forced: the reply has to be a tool call.
        cap: the output cap per choice in tokens, or None.
        choices: `n`, for each prompt of a completions body; each choice is paid for.
        json_mode: a JSON object or schema is asked for.
        stops: how many stop sequences.
        effort: reasoning effort as the caller named it, "" if not.
        thinking_tokens: explicit budget for reasoning, 0 if none.
        temperature: as asked, 1.0 if not.

    """

    system: str = ""
    last_user: str = ""
    history: list[str] = field(default_factory=list)
    history_chars: int = 0
    replies: int = 0
    reply_chars: int = 0
    turns: int = 0
    images: int = 0
    tool_results: int = 0
    tools: list[str] = field(default_factory=list)
    tool_forced: bool = False
    cap: int | None = None
    choices: int = 1
    json_mode: bool = False
    stops: int = 0
    effort: str = ""
    thinking_tokens: int = 0
    temperature: float = 1.0


def read_body(body: Mapping[str, Any]) -> BodyFacts:
    """Return the facts of a chat, completions, responses or messages body.

    The shape is known by its keys, so one reader serves all endpoints. Inside it objects are dict,
    as JSON has them: to ask for a Mapping takes four times as long, ten times a call. What has an
    unexpected type is passed over, as the provider and not we must refuse it.
    """
    facts = read_shape(body)
    turns = _turns_of(body)
    _read_turns(turns, facts)
    _read_options(body, facts)
    facts.effort = effort_of(body)
    if turns is body.get("prompt"):
        facts.choices *= _prompts(turns)
    return facts


def read_shape(body: Mapping[str, Any]) -> BodyFacts:
    """Return of a body what says which kind of call it is: system texts and tools."""
    facts = BodyFacts()
    system = [_text_of(body.get("system"), facts), _text_of(body.get("instructions"), facts)]
    _read_systems(_turns_of(body), facts, system)
    facts.system = "\n".join(part for part in system if part)
    _read_tools(body, facts)
    return facts


def _turns_of(body: Mapping[str, Any]) -> object:
    turns = body.get("messages")
    if turns is None:
        turns = body["input"] if "input" in body else body.get("prompt")
    return turns


def _read_systems(turns: object, facts: BodyFacts, system: list[str]) -> None:
    if not isinstance(turns, list):
        return
    system.extend(
        _turn_text(turn, facts)
        for turn in reversed(turns[-_MAX_ITEMS:])
        if isinstance(turn, dict) and _role_of(turn) in _SYSTEM
    )
    first = turns[0] if len(turns) > _MAX_ITEMS else None
    if isinstance(first, dict) and first.get("role") in _SYSTEM:
        system.append(_text_of(first.get("content"), facts))


def _role_of(turn: Mapping[str, Any]) -> str:
    return str(turn.get("role") or turn.get("type") or "user")


def _prompts(prompt: object) -> int:
    """Return how many prompts there are: a list of texts or token lists has one an item."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        return min(len(prompt), _PROMPTS_MAX)
    return 1


def _read_turns(turns: object, facts: BodyFacts) -> None:
    if isinstance(turns, str):
        facts.turns, facts.last_user = 1, turns
        return
    if not isinstance(turns, list):
        return
    facts.turns = 1 if turns and isinstance(turns[0], int) else len(turns)  # 1: a list of tokens
    last_user = None
    seen_reply = False
    for position in range(len(turns) - 1, max(-1, len(turns) - 1 - _MAX_ITEMS), -1):
        turn = turns[position]
        if isinstance(turn, str):  # a list of plain prompts (completions)
            role, text = "user", turn
        elif isinstance(turn, dict):
            role = _role_of(turn)
            if role in _SYSTEM:
                continue
            text = _turn_text(turn, facts)
        else:
            continue
        if role == "assistant":
            facts.replies += 1
            if not seen_reply:
                seen_reply, facts.reply_chars = True, len(text)
            facts.history.append(text)
        elif last_user is None:
            last_user = text
        else:
            facts.history.append(text)
    facts.history_chars = sum(map(len, facts.history))
    facts.last_user = last_user or ""


def _turn_text(turn: Mapping[str, Any], facts: BodyFacts) -> str:
    kind = turn.get("type")
    if turn.get("role") == "tool" or kind == "function_call_output":
        facts.tool_results += 1
    if kind == "function_call_output":
        return _text_of(turn.get("output"), facts)
    text = _text_of(turn.get("content"), facts)
    calls = turn.get("tool_calls")
    if isinstance(calls, list):
        text += "".join(str(call.get("function", "")) for call in calls if isinstance(call, dict))
    return text


def _text_of(content: object, facts: BodyFacts) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(_parts(content, facts))


def _parts(content: Iterable[object], facts: BodyFacts) -> Iterable[str]:
    for part in content:
        if isinstance(part, str):
            yield part
            continue
        if not isinstance(part, dict):
            continue
        kind = str(part.get("type", ""))
        text = part.get("text")
        if isinstance(text, str):
            yield text
        elif kind == "tool_result":
            facts.tool_results += 1
            yield _text_of(part.get("content"), facts)
        elif kind == "tool_use":
            yield str(part.get("input", ""))
        elif "image" in kind or "audio" in kind or kind in ("document", "file", "input_file"):
            facts.images += 1


def _read_options(body: Mapping[str, Any], facts: BodyFacts) -> None:
    caps = [_number(body.get(key)) for key in CAP_KEYS]
    facts.cap = next((int(cap) for cap in caps if cap is not None and cap >= 1), None)
    choices = _number(body.get("n"))
    facts.choices = int(min(choices, _CHOICES_MAX)) if choices and choices >= 1 else 1
    text = body.get("text")
    shape = body.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    facts.json_mode = isinstance(shape, dict) and "json" in str(shape.get("type", ""))
    stops = body.get("stop") or body.get("stop_sequences")
    facts.stops = len(stops) if isinstance(stops, list) else int(isinstance(stops, str))
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        budget = _number(thinking.get("budget_tokens"))
        facts.thinking_tokens = 1 if budget is None else max(1, int(budget))
    heat = _number(body.get("temperature"))
    facts.temperature = 1.0 if heat is None else heat


def effort_of(body: Mapping[str, Any]) -> str:
    """Return how much reasoning the caller asks for, in its own word; "" if it does not say."""
    reasoning = body.get("reasoning")
    effort = body.get("reasoning_effort")
    if isinstance(reasoning, dict):
        effort = reasoning.get("effort") or effort
    output = body.get("output_config")
    if isinstance(output, dict):
        effort = output.get("effort") or effort
    return effort if isinstance(effort, str) else ""


def _read_tools(body: Mapping[str, Any], facts: BodyFacts) -> None:
    tools = body.get("tools") or body.get("functions")
    if isinstance(tools, list):
        for tool in tools:
            if isinstance(tool, dict):
                inner = tool.get("function")
                name = inner.get("name") if isinstance(inner, dict) else tool.get("name")
                facts.tools.append(str(name or tool.get("type", "")))
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = choice.get("type")
    facts.tool_forced = choice in ("required", "any", "tool", "function")


def _number(value: object) -> float | None:
    """Return a finite number of JSON, else None: true, NaN and "7" are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
        return None
    return float(value)
