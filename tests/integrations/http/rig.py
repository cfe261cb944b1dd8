"""A penstock in front of a scripted provider, for each library, async and sync."""

import json
from collections.abc import Callable
from typing import Any

from penstock import Penstock, PolicySpec, Stack
from penstock.core.events import Action, Event
from penstock.core.snapshot import Snapshot
from penstock.runtime.driver import Observer

CHAT = "https://provider.example/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
REPLY = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ho"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 7},
}


def sse(*events: dict[str, Any] | str) -> bytes:
    parts = [e if isinstance(e, str) else json.dumps(e) for e in events]
    return "".join(f"data: {part}\n\n" for part in parts).encode()


def token(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


class Tape:
    """An observer that keeps what it saw."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.actions: list[Action] = []

    def event(self, now: float, event: Event) -> None:
        self.events.append(event)

    def action(self, now: float, action: Action) -> None:
        self.actions.append(action)

    def of(self, kind: type) -> list[Any]:
        return [each for each in [*self.events, *self.actions] if isinstance(each, kind)]


def penstock_with(window: int = 2, tape: Observer | None = None, **options: Any) -> Penstock:
    stack = Stack(
        capacity=PolicySpec("fixed", {"window": window}), overload=PolicySpec("always_admit")
    )
    options.setdefault("stack", stack)
    return Penstock(observers=[tape] if tape is not None else [], tracer=None, **options)


def only(penstock: Penstock) -> Snapshot:
    (snapshot,) = penstock.snapshot().values()
    return snapshot


def assert_idle(penstock: Penstock) -> None:
    for snapshot in penstock.snapshot().values():
        assert (snapshot.waiting, snapshot.deferred, snapshot.in_flight) == (0, 0, 0)
        assert all(u.in_flight_tokens == 0 for u in snapshot.upstreams.values())


Script = Callable[[Any], Any]


def scripted(library: Any, penstock: Penstock, script: Script, **options: Any) -> Any:
    """Return an async client whose provider is a function from request to response."""
    transport = library.MockTransport(script)
    return penstock.async_client(library=library.__name__, transport=transport, **options)


def scripted_sync(library: Any, penstock: Penstock, script: Script, **options: Any) -> Any:
    """Return a sync client whose provider is a function from request to response."""
    transport = library.MockTransport(script)
    return penstock.client(library=library.__name__, transport=transport, **options)
