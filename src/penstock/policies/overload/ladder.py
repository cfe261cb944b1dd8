"""The cost ladder and its three controls: one ladder each, with severity thresholds of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from penstock.core.policy import Admit, DeferFor, Shed, Verdict
from penstock.core.rule import BrokenRules, Rule
from penstock.core.signals import PATIENCE_S, Signals
from penstock.core.ticket import Ticket

NEVER = 2.0  # severity ends at 1
ADMIT = Admit()
Rung = Literal["short", "medium", "long", "xlong"]
_RUNGS: tuple[Rung, ...] = get_args(Rung)
_SEVERITY = Rule(low=0.0, high=NEVER, why="as severity is from 0 to 1: above 1 is never")
Thresholds = Mapping[Rung, Annotated[float, _SEVERITY]]
"""Severity by rung, the name of a bucket of predicted tokens."""
_Returns = Annotated[int, Rule(low=0, whole=True)]
_Share = Annotated[
    float, Rule(low=0.0, low_is_allowed=False, high=1.0, why="a share of the request's slack")
]


@dataclass(frozen=True, slots=True)
class Ladder:
    """For each rung, the severities from which its requests are deferred and shed.

    Between the two a request is deferred at most `returns` times and then admitted. At or above
    the second it is deferred first as well, and shed only if the overload outlasts its returns:
    a burst that ends in time costs nobody. A request that cannot bear another deferral is judged
    as if it had used all of them. Whatever the severity, where no other class sends anything a
    request that would be on time behind all that waits is admitted: long requests alone are no
    overload.

    Attributes:
        defer_at, shed_at: severity by rung (bucket); a rung that is absent is never deferred
            or shed.
        returns: how often a request may be deferred.
        delay_share: a deferral's length as a share of the request's slack.
        min_delay_s, max_delay_s: bounds of that length.

    """

    defer_at: Mapping[str, float]
    shed_at: Mapping[str, float]
    returns: int = 3
    delay_share: float = 0.15
    min_delay_s: float = 0.5
    max_delay_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse thresholds that no severity has, and rungs that no request stands on.

        Raises:
            ValueError: an option that cannot work; the text gives its name, value and rule.

        """
        _require_thresholds("defer_at", self.defer_at)
        _require_thresholds("shed_at", self.shed_at)

    def judge(self, ticket: Ticket, signals: Signals, *, now: float) -> Verdict:
        """Return what the rung's thresholds say at this severity."""
        severity = signals.severity
        if severity < self.defer_at.get(ticket.rung, NEVER):
            return ADMIT
        slack_s = ticket.latest_start - now
        fits = signals.waiting_work_s <= signals.window * min(slack_s, PATIENCE_S)
        if fits and signals.is_alone(ticket.request.traffic_class, now):
            return ADMIT
        delay_s = max(self.min_delay_s, min(self.max_delay_s, self.delay_share * slack_s))
        if ticket.deferrals < self.returns and delay_s < slack_s:
            return DeferFor(delay_s, "overload")
        if severity >= self.shed_at.get(ticket.rung, NEVER):
            return Shed("shed", retry_after_s(signals))
        return ADMIT


def _require_thresholds(name: str, thresholds: object) -> None:
    if not isinstance(thresholds, Mapping):
        raise BrokenRules((name, thresholds, "must be a table of severities by rung"))
    unknown = f"no such rung: must be one of {', '.join(_RUNGS)}"
    broken = [
        (f"{name}.{rung}", severity, str(_SEVERITY) if rung in _RUNGS else unknown)
        for rung, severity in thresholds.items()
        if rung not in _RUNGS or not _SEVERITY.allows(severity)
    ]
    if broken:
        raise BrokenRules(*broken)


def retry_after_s(signals: Signals) -> float:
    """Return when what waits now will have been served, within 1 to 60 s."""
    return min(60.0, max(1.0, signals.waiting_work_s / max(1.0, min(signals.window, 1e9))))


def _ladder(doc: str, defers: Thresholds, sheds: Thresholds) -> Callable[..., Ladder]:
    """Return the policy that is a ladder with these thresholds unless others are given."""

    def ladder(
        *,
        defer_at: Thresholds | None = None,
        shed_at: Thresholds | None = None,
        returns: _Returns = 4,
        delay_share: _Share = 0.3,
    ) -> Ladder:
        return Ladder(
            cast("Mapping[str, float]", defers if defer_at is None else defer_at),
            cast("Mapping[str, float]", sheds if shed_at is None else shed_at),
            returns,
            delay_share,
        )

    ladder.__doc__ = doc
    return ladder


cost_ladder = _ladder(
    """The dearer a request, the earlier it is deferred and shed; the cheapest is never shed.

    Source:
        The paper's cost ladder; its rungs are the paper's buckets, the thresholds ours.

    """,
    {"xlong": 0.65, "long": 0.85, "medium": 0.95},
    {"xlong": 0.75, "long": 0.92, "medium": 0.98},
)
reverse_ladder = _ladder(
    """The cost ladder with its rungs mirrored: the cheapest request is shed first.

    Source:
        The control of the paper's overload comparison; thresholds mirrored from ours.

    """,
    {"short": 0.65, "medium": 0.85, "long": 0.95},
    {"short": 0.75, "medium": 0.92, "long": 0.98},
)
uniform_harsh = _ladder(
    """One early threshold for every request, whatever it costs.

    Source:
        The paper's uniform-harsh policy; the thresholds are ours.

    """,
    dict.fromkeys(_RUNGS, 0.4),
    dict.fromkeys(_RUNGS, 0.55),
)
uniform_mild = _ladder(
    """One late threshold for every request, whatever it costs.

    Source:
        The paper's uniform-mild policy; the thresholds are ours.

    """,
    dict.fromkeys(_RUNGS, 0.75),
    dict.fromkeys(_RUNGS, 0.85),
)
