"""How a scheduler is set up; what the configuration file and the scenarios turn into."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from penstock.core.model import TrafficClass
from penstock.core.rule import Rule

_COUNT = Rule(low=1, whole=True)
_SHARE = Rule(low=0, high=1)
_PAUSE = Rule(low=0, low_is_allowed=False, high=1e9)
Option = float | int | str | bool | Mapping[str, float]


def fits(pattern: str, name: str) -> bool:
    """Return whether a name fits a pattern in which `*` stands for any text, and nothing else does.

    Not `fnmatch`, to which `[` and `?` in a model's name would mean something.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return pattern == name
    last = parts.pop()
    at, end = len(first), len(name) - len(last)
    if not (name.startswith(first) and name.endswith(last) and at <= end):
        return False
    for part in parts:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def require_kind(kind: type, **given: object) -> None:
    """Refuse what is of another kind than this dataclass of ours.

    Raises:
        TypeError: one is.

    """
    for name, value in given.items():
        if not isinstance(value, kind):
            raise TypeError(
                f"{name}={value!r:.80} is a {type(value).__name__}: it must be a "
                f"penstock.{kind.__name__}(...)"
            )


def _require_classes(given: object) -> None:
    if not isinstance(given, tuple | list):
        rule = "it must be a tuple of penstock.TrafficClass(...)"
        raise TypeError(f"classes={given!r:.80}: {rule}")
    for each in given:
        require_kind(TrafficClass, classes=each)


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A policy by its registry name, with its options."""

    kind: str
    options: Mapping[str, Option] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an upstream's terms allow; inf where unlimited.

    Attributes:
        requests_per_min, tokens_per_min, input_tokens_per_min, output_tokens_per_min: in any 60 s.
        requests_per_s: in any second. requests_per_day, tokens_per_day: in any 24 hours since the
            scheduler began.
        charged: "usage": what a reply used is charged. "reservation": the prompt and the most that
            the reply may have (its cap, else the p90) when it is sent, and no token is given back.

    """

    requests_per_min: float = math.inf
    tokens_per_min: float = math.inf
    input_tokens_per_min: float = math.inf
    output_tokens_per_min: float = math.inf
    requests_per_s: float = math.inf
    requests_per_day: float = math.inf
    tokens_per_day: float = math.inf
    charged: Literal["usage", "reservation"] = "usage"

    def __post_init__(self) -> None:
        """Refuse limits under which nothing would go in a lifetime.

        Raises:
            ValueError: a limit is below 0.001 (a minute: one in 17 hours) or not a number, or
                `charged` is another word.

        """
        for each in fields(self):
            limit = getattr(self, each.name)
            if each.name != "charged" and not limit >= 1e-3:
                raise ValueError(f"{each.name}={limit!r} must be at least 0.001")
        if self.charged not in ("usage", "reservation"):
            raise ValueError(f"charged={self.charged!r} must be 'usage' or 'reservation'")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One account, region or provider.

    Attributes:
        models: what it serves, where `*` stands for any text; empty for anything.
        capacity: its window policy; None for the stack's.
        limits: stated limits; learnt ones tighten them.
        model_limits: likewise for one model, by its name; `charged` is each one's own.
        base_s, s_per_token: first guess of its service time, replaced by what replies show.
        identity: what stands behind the name, as a digest: with another one, everything that was
            learnt of it is forgotten at a reload.

    """

    name: str = "default"
    models: tuple[str, ...] = ()
    capacity: PolicySpec | None = None
    limits: Limits = Limits()
    model_limits: Mapping[str, Limits] = field(default_factory=dict, kw_only=True)
    base_s: float = 0.2
    s_per_token: float = 0.005
    identity: str = ""

    def __post_init__(self) -> None:
        """Refuse a dictionary where something of ours belongs.

        Raises:
            TypeError: `limits` or `capacity` is of another kind.

        """
        require_kind(Limits, limits=self.limits, **self.model_limits)
        if self.capacity is not None:
            require_kind(PolicySpec, capacity=self.capacity)

    def serves(self, model: str) -> bool:
        """Return whether it may be asked for the model."""
        models = self.models
        return not models or model in models or any(fits(each, model) for each in models)

    @property
    def every_limits(self) -> tuple[Limits, ...]:
        """The limits of the account, and those of each model."""
        return self.limits, *self.model_limits.values()


@dataclass(frozen=True, slots=True)
class Stack:
    """The four layers' policies; the defaults are penstock's."""

    allocation: PolicySpec = PolicySpec("adaptive_drr")
    ordering: PolicySpec = PolicySpec("feasible_set")
    overload: PolicySpec = PolicySpec("cost_ladder")
    capacity: PolicySpec = PolicySpec("posterior")

    def __post_init__(self) -> None:
        """Refuse a bare name where a policy belongs.

        Raises:
            TypeError: a layer's policy is of another kind.

        """
        require_kind(PolicySpec, **{each.name: getattr(self, each.name) for each in fields(self)})


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a scheduler needs to know before the first event.

    Attributes:
        classes: traffic classes; a request of any other class is an error.
        upstreams: where requests may go.
        stack: the policies.
        queue_limit: how many requests may wait in all.
        sticky: keep a session on the upstream that served it last, while that one has room.
        tenant_turns: inside a class, the tenant that was served least goes next.
        retry_share: attempts beyond the first, as a share of requests, while an upstream refuses.
        max_attempts: after so many attempts, the first included, a fault or silence is final.
            Refusals at the upstream's door are not, as long as the request has a deadline or a
            time-to-live to end it, or has not waited for 60 s. (`core.outage`: where nothing is
            served, 60 s are the longest wait without a deadline.)
        max_pause_s: no upstream is paused for longer, whatever wait it states; then it is probed.

    """

    classes: tuple[TrafficClass, ...]
    upstreams: tuple[UpstreamSettings, ...] = (UpstreamSettings(),)
    stack: Stack = Stack()
    queue_limit: int = 100_000
    sticky: bool = False
    tenant_turns: bool = True
    retry_share: float = 0.1
    max_attempts: int = 8
    max_pause_s: float = 900.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            TypeError: the classes are no tuple of them.
            ValueError: no class, no upstream, a name used twice, or a number that breaks its rule.

        """
        _require_classes(self.classes)
        _COUNT.require(queue_limit=self.queue_limit, max_attempts=self.max_attempts)
        _SHARE.require(retry_share=self.retry_share)
        _PAUSE.require(max_pause_s=self.max_pause_s)
        for what, names in (
            ("classes", [c.name for c in self.classes]),
            ("upstreams", [u.name for u in self.upstreams]),
        ):
            if not names:
                raise ValueError(f"{what}=() leaves nothing to schedule: name at least one")
            if len(set(names)) != len(names):
                raise ValueError(f"{what}={names} names one twice: each name must be unique")
