"""What a caller says about a request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.calls.endpoint import BY_KIND, CHAT, Endpoint
from penstock.calls.facts import Facts, facts_of, text_tokens
from penstock.core.model import TokenEstimate


@dataclass(slots=True)
class Prediction:
    """An estimate, and who wants to hear how long the reply really was.

    Attributes:
        estimate: of the output tokens.
        learn: told the real output tokens; None if nobody cares.
        prompt_tokens: size of the prompt, where the predictor read it; 0 if unknown.
        route: the kind of call, where the predictor found one; no text of the prompt.

    """

    estimate: TokenEstimate
    learn: Callable[[int], None] | None = None
    prompt_tokens: int = 0
    route: str = ""


@dataclass(slots=True)  # not frozen: that makes each call 3 us dearer; nobody changes one
class RequestSpec:
    """A request in the caller's words; everything is optional.

    Attributes:
        traffic_class: the class by name; the gate's default if None.
        deadline_s: seconds from now until the last token is wanted; the class's if None.
        expires_in_s: seconds from now after which it is refused if still waiting.
        tokens: how many output tokens the reply will have, where the caller knows better than a
            prediction: a count, a median and a 90th percentile, or an estimate.
        max_tokens: the most that the reply may have, all choices together; caps what is stated or
            predicted. The body's if None.
        prompt_tokens: input size, if known; otherwise it is counted in `body` or `prompt`.
        tenant, session, account: as in `core.model.Request`.
        model: likewise; the body's if empty.
        prompt: the text, to be counted and for the predictor; never kept, logged or shown.
        body: the parsed API request, likewise.
        route: a name for this kind of call (a prompt template, say), for the predictor and the log.
        endpoint: "chat", "completions", "responses", "embeddings" or "messages": how to read
            `body`, and for the trace; "chat" if empty.
        vendor: "openai" or "anthropic", for the trace.
        upstream: the only one that may have it; any if empty.
        facts: of `body` or `prompt`, once somebody has read it.
        prediction: of the output tokens, where it is made already.
        idle: whether nothing waits where it goes; the gate says so, for the predictor.

    """

    traffic_class: str | None = None
    deadline_s: float | None = None
    expires_in_s: float | None = None
    tokens: TokenEstimate | float | tuple[float, float] | None = None
    max_tokens: int | None = None
    prompt_tokens: int | None = None
    tenant: str = ""
    model: str = ""
    session: str = ""
    prompt: str | None = field(default=None, repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    route: str = ""
    endpoint: str = ""
    vendor: str = ""
    upstream: str = ""
    facts: Facts | None = field(default=None, repr=False, compare=False)
    prediction: Prediction | None = field(default=None, repr=False)
    account: str = ""
    idle: bool = field(default=False, repr=False, compare=False)

    @property
    def kind(self) -> Endpoint:
        """The endpoint's row; that of chats for a name that no row has."""
        return BY_KIND.get(self.endpoint, CHAT)

    @property
    def cap_tokens(self) -> int | None:
        """The most output tokens: the caller's word, else the body's."""
        if self.max_tokens is not None:
            return self.max_tokens
        return None if self.facts is None else self.facts.max_tokens

    def read(self) -> Facts:
        """Return the facts of the body, or of the bare prompt; read once."""
        facts = self.facts
        if facts is None:
            if self.body is not None:
                facts = facts_of(self.kind, self.body)
            elif self.prompt is not None:
                facts = Facts(prompt_tokens=text_tokens(self.prompt))
            else:
                facts = Facts()
            self.facts = facts
        return facts
