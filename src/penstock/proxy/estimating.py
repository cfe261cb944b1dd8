"""How long a reply will be, as far as anybody can tell at submission."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.calls.stated import STATED
from penstock.core.model import TokenEstimate
from penstock.proxy.call import Call
from penstock.proxy.config.models import Config
from penstock.proxy.config.to_core import estimate_of
from penstock.proxy.routes import Route
from penstock.proxy.routing import fits

if TYPE_CHECKING:
    from penstock.predict import CallFeatures, GuardedPredictor

MEDIAN_OF_TRUSTED_CAP = 0.6
"""Callers who set max_tokens to what they need leave some room (ours, version 1)."""

_ROWS_KEPT = 1000
_NOTHING = TokenEstimate(1.0, 1.0, "table")


@dataclass(frozen=True, slots=True)
class Estimated:
    """An estimate, and what the predictor wants back with the reply's real count."""

    estimate: TokenEstimate
    features: "CallFeatures | None" = None

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the predictor counted in the prompt; 0 if it read none."""
        return 0 if self.features is None else self.features.prompt_tokens

    @property
    def route(self) -> str:
        """The caller's name for this kind of call, or the predictor's; empty if it read none."""
        return "" if self.features is None else self.features.route


class Estimator:
    """The configured table, or a predictor with the table behind it.

    Attributes:
        predictor: the predictor, once there is one.
        unread: bodies that it could make nothing of.

    """

    def __init__(self, config: Config, predictor: "GuardedPredictor | None" = None) -> None:
        """Turn the configuration's tables into estimates once."""
        table = config.estimates
        self._default = estimate_of(table.default, "default")
        self._rows = [(row, estimate_of(row, "table")) for row in table.table]
        self._trust = table.trust_max_tokens
        self._of_class = {
            item.name: estimate_of(item.estimate, "class")
            for item in config.classes
            if item.estimate is not None
        }
        self._row_of: dict[tuple[str, bytes], TokenEstimate | None] = {}
        self.predictor = predictor
        self.unread = 0

    def estimate(
        self,
        route: Route,
        call: Call,
        body: Mapping[str, Any],
        *,
        traffic_class: str | None = None,
        label: str | None = None,
        stated: TokenEstimate | None = None,
    ) -> Estimated:
        """Return the best estimate for a call; whatever the predictor does, there is one.

        Args:
            route: its path.
            call: its facts.
            body: the parsed body, for the predictor; not kept.
            traffic_class: its class where that is certain already.
            label: the caller's name for this kind of call, for the predictor.
            stated: what the caller says itself; it goes before all that is guessed here.

        """
        prior = stated or self._prior(route, call, traffic_class)
        if self.predictor is None or not route.streams:
            return Estimated(prior)
        from penstock.predict import CallFeatures

        try:
            features = CallFeatures.from_body(body, endpoint=route.kind, route=label)
        except Exception:  # noqa: BLE001 - counted; an odd body is the provider's to judge
            self.unread += 1
            return Estimated(prior)
        if stated is not None:
            return Estimated(stated, features)
        return Estimated(self.predictor.predict(features, fallback=prior), features)

    def learn(self, estimated: Estimated, output_tokens: int) -> None:
        """Tell the predictor what a reply really had."""
        if self.predictor is None or estimated.features is None:
            return
        if estimated.estimate.source == STATED:
            # A lesson like any other, but no merit or fault of the predictor's.
            self.predictor.learn(estimated.features, output_tokens)
        else:
            self.predictor.settle(estimated.features, estimated.estimate, output_tokens)

    def _prior(self, route: Route, call: Call, traffic_class: str | None) -> TokenEstimate:
        if not route.streams:
            return _NOTHING  # embeddings write nothing
        cap = call.max_tokens
        row = self._row(route, call.model) if self._rows else None
        if row is not None:
            prior = row
        elif self._trust and cap is not None:
            prior = TokenEstimate(max(1.0, cap * MEDIAN_OF_TRUSTED_CAP), float(cap), "max_tokens")
        else:
            prior = self._of_class.get(traffic_class or "", self._default)
        return _scaled(prior, cap, call.replies)

    def _row(self, route: Route, model: str) -> TokenEstimate | None:
        key = (model, route.tail)
        if key in self._row_of:
            return self._row_of[key]
        tail = route.tail.decode()
        found = next(
            (e for row, e in self._rows if fits(row.model, model) and fits(row.path, tail)), None
        )
        if len(self._row_of) < _ROWS_KEPT:
            self._row_of[key] = found
        return found


def _scaled(prior: TokenEstimate, cap: int | None, replies: int) -> TokenEstimate:
    p50, p90 = prior.p50_tokens, prior.p90_tokens
    if cap is not None and cap < p90:
        p50, p90 = min(p50, cap), float(cap)
    elif replies == 1:
        return prior
    return TokenEstimate(p50 * replies, p90 * replies, prior.source)
