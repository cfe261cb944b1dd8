"""The answer to "why is it slow?": one request's story, also while it waits."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from penstock.core.model import Request
from penstock.core.snapshot import QueuePosition
from penstock.dashboard.views import ViewSource
from penstock.log.explain import WAITS, RequestHistory

HELPS = {
    "class": "a class with more weight, if it is as urgent as those that go before it",
    "window": "less of the same class, a shorter deadline if it is urgent, or another upstream: "
    "penstock sends as much at once as the provider serves without queueing inside (see Window)",
    "limits": "a higher limit on requests or tokens a minute, at the provider or in the "
    "configuration",
    "upstream": "another upstream: this one refused, failed or was paused by hand (see Now for "
    "how long)",
    "deferral": "less load, or a class or an estimate that stands on a cheaper rung: the provider "
    "was overloaded",
    "backoff": "another upstream: its earlier attempt was refused or failed",
}
"""What to do about a wait, by the word in `Why.waits`."""
PHASES = {
    "provider": "at the provider",
    "tokens": "tokens arriving",
    "earlier": "in earlier attempts",
    "untold": "waiting; its cause was not told",
}
BEFORE_TOKENS = {"provider": "at the provider, before the first token"}
"""Of a stream; of a whole reply no first token is seen."""


def request_view(source: ViewSource, public_id: str) -> dict[str, Any] | None:
    """Return one request's story, and where it stands if it still waits; None if unknown."""
    story = source.story(public_id)
    if story is None:
        return None
    request = story.request
    now = source.now()
    place = None if story.ended or not source.live else source.place(request.id)
    age_s = story.steps[-1].after_s if story.ended else now - request.arrived_at
    waits = story.phases if place is None else place.why.waits
    phases = _whole(waits, age_s, sent=any(step.what == "dispatch" for step in story.steps))
    where = None if place is None else _place(source, place, request, now)
    return {
        "id": public_id,
        "live": source.live,
        "summary": _summary(story, phases, where, age_s),
        "opening": story.opening,
        "steps": [asdict(step) for step in story.steps],
        "ended": story.ended,
        "phases": phases,
        "age_s": age_s,
        "place": where,
        "words": WAITS | PHASES | (BEFORE_TOKENS if "tokens" in phases else {}),
    }


def _whole(phases: Mapping[str, float], age_s: float, *, sent: bool) -> dict[str, float]:
    """Return the phases in order, with the rest of the request's time.

    What was sent had the rest in attempts before the last one. Of what still waits a log does not
    tell the causes.
    """
    known = {name: phases[name] for name in (*WAITS, "provider", "tokens") if name in phases}
    rest_s = age_s - sum(known.values())
    return {**known, "earlier" if sent else "untold": rest_s} if rest_s >= 0.0005 else known


def _summary(
    story: RequestHistory,
    phases: Mapping[str, float],
    place: Mapping[str, Any] | None,
    age_s: float,
) -> list[str]:
    """Return the answer to "why is it slow?" in a few sentences."""
    waits = sorted(((s, cause) for cause, s in phases.items() if cause in WAITS), reverse=True)
    waited_s = sum(seconds for seconds, _ in waits) + phases.get("untold", 0.0)
    causes = ", ".join(f"{s:.1f} s because {WAITS[cause]}" for s, cause in waits if s >= 0.05)
    provider_s = phases.get("provider", 0.0) + phases.get("tokens", 0.0)
    if place is not None:
        others = place["why"]["sent_meanwhile"]
        gone = f" Meanwhile {others:,} of its class went." if others else ""
        lines = [f"It waits: {waited_s:.1f} s so far ({causes or 'it has only come'}).{gone}"]
        lines.append(f"Now it waits because {place['words']}.")
        if place["position"] is not None:
            lines.append(_turn(place))
        else:
            lines.append(f"It is looked at again in {place['start_in_s']:.1f} s.")
    else:
        verb = "It took" if story.ended else "It has not ended, after"
        parts = [f"{waited_s:.1f} s waiting here" + (f" ({causes})" if causes else "")]
        if phases.get("earlier", 0.0) >= 0.05:
            parts.append(f"{phases['earlier']:.1f} s in earlier attempts")
        parts.append(f"{provider_s:.1f} s at the provider")
        lines = [f"{verb} {age_s:.1f} s: {', '.join(parts)}."]
        if story.ended:
            lines.append(story.steps[-1].words[0])
    if waits and waits[0][0] > provider_s and waits[0][1] in HELPS:
        lines.append(f"What helps: {HELPS[waits[0][1]]}.")
    return lines


def _turn(place: Mapping[str, Any]) -> str:
    """Return where it stands in its queue, and when its turn may come."""
    turn = f"It is number {place['position']:,} of its class"
    if place["tenants"] > 1:
        turn = (
            f"It is number {place['position']:,} of its tenant; "
            f"{place['tenants']} tenants take turns"
        )
    pace = f"{place['sent_per_s']:.2g} of its class were sent a second in the last minute"
    if not place["sent_per_s"]:
        pace = "none of its class was sent in the last minute"
    return f"{turn}; {pace}, so its turn may come in about {place['start_in_s']:.1f} s."


def _place(
    source: ViewSource, place: QueuePosition, request: Request, now: float
) -> dict[str, Any]:
    """Return where a request stands, and when its turn may come."""
    sent_per_s = source.state.sent_per_s(request, now)
    return {
        "cause": place.cause,
        "words": WAITS.get(place.cause, place.cause),
        "position": place.position,
        "tenants": place.tenants,
        "sent_per_s": sent_per_s,
        "start_in_s": place.start_in_s(sent_per_s, now=now),
        "why": asdict(place.why),
    }
