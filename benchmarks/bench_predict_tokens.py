"""How far the estimate of a prompt's tokens is off, by kind of text, beside characters / 4.

Run: python benchmarks/bench_predict_tokens.py. Needs penstock[tokenizer] to count with and the
public prompts, as `bench_predict.py` does; source code is that of the running Python.
"""

from __future__ import annotations

import json
import math
import sysconfig
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import bpe_openai
import numpy as np
from bench_predict import prompts

from penstock.predict.features.text import SAMPLE_BYTES, VOCABULARY, estimate_tokens, read_text

EACH = 400


def estimated(text: str) -> int:
    """Return what a call's prompt is taken for where no tokenizer is installed."""
    read = read_text(text)
    stretch = max(1.0, len(text) / (2 * SAMPLE_BYTES))
    return math.ceil(estimate_tokens(read.kind_counts, read.words, stretch=stretch))


def kinds() -> dict[str, list[str]]:
    """Return texts by kind."""
    texts: dict[str, dict[str, None]] = defaultdict(dict)
    for route, _, _, _, text in prompts():
        texts[route][text] = None
    out = {route: list(found)[:EACH] for route, found in sorted(texts.items())}
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:EACH]
    out["Python source"] = [path.read_text(errors="replace")[:4000] for path in sources]
    some = [text for route in out for text in out[route][:40]]
    out["compact JSON"] = [
        json.dumps({"id": n, "prompt": text[:80], "sizes": [len(text), n * 7, n / 7]})
        for n, text in enumerate(some)
    ]
    return out


def main() -> None:
    """Print a line a kind: estimate over count, median and 5th to 95th percentile."""
    known = bpe_openai.get_encoding(VOCABULARY)
    print("| text | penstock: median (5th to 95th percentile) | characters / 4 |")
    print("|---|---|---|")
    for kind, texts in kinds().items():
        counts = np.array([max(1, len(known.encode_ordinary(text))) for text in texts])
        shown = _ratio([estimated(text) for text in texts], counts)
        quarter = float(np.median(np.array([len(text) / 4 for text in texts]) / counts))
        print(f"| {kind} | {shown} | {quarter:.2f} |")


def _ratio(estimates: Sequence[int], counts: np.ndarray) -> str:
    low, middle, high = np.quantile(np.array(estimates) / counts, (0.05, 0.5, 0.95))
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
