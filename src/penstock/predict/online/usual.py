"""What replies of a kind of call usually have: an estimate for calls whose texts are not read."""

from __future__ import annotations

import math

from penstock.core.model import TokenEstimate
from penstock.predict.features.call import CallFeatures, CallKind
from penstock.predict.online.groups import GroupCentres, KeptGroups

SOURCE = "predictor:usual"
_KNOWN_AFTER = 50  # replies of a group: of fewer the p90 is a matter of one or two of them


class UsualReplies:
    """The quantiles of the last replies of a (model, route) group.

    They cost a fiftieth of a prediction, which is better by what the call's own texts say: frozen
    after training 0.86 of buckets are right where the group's quantiles get 0.79.
    """

    def __init__(self, centres: GroupCentres) -> None:
        """Ask `centres`, the windows of log tokens per choice."""
        self._centres = centres
        self._per_char: KeptGroups[float] = KeptGroups()

    def note(self, call: CallFeatures) -> None:
        """Remember how many tokens a character of such prompts has, of a call that was read."""
        key = _key(call)
        if self._centres.quantiles(key, (), at_least=_KNOWN_AFTER) is not None:
            self._per_char.put(key, call.prompt_tokens / max(1, call.prompt_chars))

    def of(self, kind: CallKind) -> tuple[TokenEstimate, int] | None:
        """Return the estimate, as the predictor would, and the size of the prompt in tokens.

        None where too few replies of its kind are known.
        """
        key, facts = _key(kind), kind.facts
        per_char = self._per_char.get(key)
        found = self._centres.quantiles(key, (0.5, 0.9), at_least=_KNOWN_AFTER)
        if per_char is None or found is None:
            return None
        p50, p90 = (max(1.0, math.exp(value)) * facts.choices for value in found)
        prompt_tokens = math.ceil(per_char * facts.chars)
        return TokenEstimate(p50, p90, SOURCE).capped(kind.cap_tokens), prompt_tokens


def _key(call: CallFeatures | CallKind) -> str:
    return f"{call.model}\0{call.route}"
