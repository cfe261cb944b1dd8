"""The predictor: estimates output tokens at submission, learns from every reply."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Self

from penstock.core.model import TokenEstimate
from penstock.predict.call import CallFeatures
from penstock.predict.window import Window

_WINDOW = 200
_ENOUGH = 5


class Predictor:
    """Estimates a call's output tokens and learns from what the reply really had."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}

    @classmethod
    def cold(cls) -> Self:
        """Return a predictor that knows nothing."""
        return cls()

    @classmethod
    def shipped(cls) -> Self:
        """Return a predictor with the shipped prior."""
        return cls()

    def predict(self, call: CallFeatures) -> TokenEstimate:
        """Return p50 and p90 of all output tokens of the call, at most what it allows."""
        for key in _groups(call):
            window = self._windows.get(key)
            if window is not None and len(window) >= _ENOUGH:
                p50 = math.exp(window.quantile(0.5)) * call.choices
                p90 = math.exp(window.quantile(0.9)) * call.choices
                break
        else:
            p50, p90 = 256.0 * call.choices, 1024.0 * call.choices
        p50 = max(1.0, min(p50, call.cap_tokens))
        p90 = max(p50, min(p90, call.cap_tokens))
        return TokenEstimate(p50, p90, "predictor:online")

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Take note of the real output tokens; 0 counts as 1."""
        value = math.log(max(1.0, output_tokens / call.choices))
        for key in _groups(call):
            self._windows.setdefault(key, Window(_WINDOW)).add(value)

    def save(self, path: Path) -> None:
        """Write the learned state, atomically."""
        state = {key: window.values() for key, window in self._windows.items()}
        part = path.with_suffix(path.suffix + ".part")
        part.write_text(json.dumps(state))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the predictor that was saved at `path`."""
        predictor = cls()
        for key, values in json.loads(path.read_text()).items():
            window = Window(_WINDOW)
            for value in values:
                window.add(value)
            predictor._windows[key] = window
        return predictor


def _groups(call: CallFeatures) -> tuple[str, ...]:
    return (f"{call.model}|{call.route}", f"|{call.route}", f"{call.model}|", "|")
