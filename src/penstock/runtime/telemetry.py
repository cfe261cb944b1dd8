"""Hooks for every event, and the name of a run."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from penstock.core.events import Action, Event


@dataclass(frozen=True, slots=True)
class Hooks:
    """Plain functions as an observer; they run on the caller's path, so keep them short.

    Attributes:
        on_event: called with (now, event) before the scheduler is told.
        on_action: called with (now, action) before it is carried out.

    """

    on_event: Callable[[float, Event], object] | None = None
    on_action: Callable[[float, Action], object] | None = None

    def event(self, now: float, event: Event) -> None:
        """Pass an event on."""
        if self.on_event is not None:
            self.on_event(now, event)

    def action(self, now: float, action: Action) -> None:
        """Pass an action on."""
        if self.on_action is not None:
            self.on_action(now, action)


def new_run() -> str:
    """Return six random characters that name a process's requests in public ids and logs."""
    return secrets.token_hex(3)
