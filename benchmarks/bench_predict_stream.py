"""How good the predictor is while it learns: cold streams, and a new model's first 50 replies.

Run: python benchmarks/bench_predict_stream.py [cold|first ...]. Needs the public prompts, as
`bench_predict.py` does. Everything is seeded.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from bench_predict import TEACHER, Rows, gpt4_mix, prompts, split
from numpy.typing import NDArray

from penstock.predict import CallFeatures, OnlinePredictor
from penstock.predict.evaluate import STRETCHES, Scores, score
from penstock.predict.train.datasets import RecordedReply
from penstock.predict.train.shared import train_shared

SPLITS = 2
ORDERS = 5
COLD_STREAMS = 10
FIRST = 50
KEPT_BACK = 9
MIXED_MAX = 450  # of a route in the mix, 30 % of 1,500
Stream = Sequence[tuple[CallFeatures, float]]
Triples = NDArray[np.float64]


def play(predictor: OnlinePredictor, stream: Stream) -> Triples:
    """Return real length, p50 and p90 of each reply, each predicted before it is learned."""
    out = []
    for call, tokens in stream:
        said = predictor.predict(call)
        predictor.learn(call, round(tokens))
        out.append((tokens, said.p50_tokens, said.p90_tokens))
    return np.array(out)


def scored(played: Triples) -> Scores:
    """Return the figures of what was played."""
    return score(played[:, 0], played[:, 1], played[:, 2])


def cold() -> None:
    """Print the figures per stretch of cold streams of the GPT-4 mix, with and without labels."""
    rows = gpt4_mix()
    for labelled in (True, False):
        print("with route labels" if labelled else "without a route label")
        runs = []
        for seed in range(COLD_STREAMS):
            stream = _mixed(rows, seed, labelled=labelled)
            runs.append(play(OnlinePredictor.cold(), stream))
        for name, first, end in STRETCHES:
            parts = [scored(run[first:end]) for run in runs if len(run) > first]
            if parts:
                print(_line(name, parts), flush=True)


def _mixed(rows: Rows, seed: int, *, labelled: bool) -> Stream:
    _, kept = split(rows, seed)
    order = np.random.default_rng(seed).permutation(len(kept))
    stream = [(kept[at].call, float(np.exp(kept[at].log_tokens))) for at in order]
    return stream if labelled else [(_without_route(call), tokens) for call, tokens in stream]


def _without_route(call: CallFeatures) -> CallFeatures:
    fields = {name: getattr(call, name) for name in call.__slots__}
    return CallFeatures(**fields | {"route": "~chat"})


def _line(name: str, parts: Sequence[Scores]) -> str:
    a, r, e, c = (
        np.mean([np.nan if part is None else part for part in column])
        for column in zip(
            *(
                (s.bucket_accuracy, s.pair_ranking, s.median_multiplicative_error, s.p90_coverage)
                for s in parts
            ),
            strict=True,
        )
    )
    return f"| {name} | {a:.3f} | {r:.3f} | x{e:.3f} | {c:.3f} |"


def first() -> None:
    """Print the first 50 replies of models that the prior has not seen, on prompts it has not."""
    results: dict[tuple[str, str], list[Scores]] = defaultdict(list)
    for seed in range(SPLITS):
        trained, streams = kept_back(seed)
        prior = train_shared(trained)
        for route, stream in streams:
            for way in ("shipped", "cold"):
                predictor = (
                    OnlinePredictor.from_prior(prior)
                    if way == "shipped"
                    else OnlinePredictor.cold()
                )
                results[route, way].append(scored(play(predictor, stream)))
    print("| first 50 replies | bucket accuracy | pair ranking | error | p90 coverage |")
    print("|---|---|---|---|---|")
    for (route, way), parts in sorted(results.items()):
        print(_line(f"{route}, {way}, {len(parts)} streams", parts))
    for way in ("shipped", "cold"):
        routes = [parts for (_, name), parts in sorted(results.items()) if name == way]
        print(_line(f"all streams, {way}", [part for parts in routes for part in parts]))


def kept_back(seed: int) -> tuple[list[RecordedReply], list[tuple[str, Stream]]]:
    """Return what a prior is trained on, and streams of 50 of each (route, model) kept from it.

    Kept back are 30 % of the prompts and nine models; of the model that alone is recorded on
    its routes, the prompts only, and its name.
    """
    rows = prompts()
    chance = np.random.default_rng(seed)
    ids = sorted({row[1] for row in rows})
    chance.shuffle(ids)
    unseen = set(ids[: round(0.3 * len(ids))])
    models = sorted({row[2] for row in rows} - {TEACHER})
    hidden = set(chance.choice(models, KEPT_BACK, replace=False).tolist())
    trained: list[RecordedReply] = []
    kept: dict[tuple[str, str], list[tuple[str, str, float]]] = defaultdict(list)
    drawn: Counter[str] = Counter()
    for route, ph, model, tokens, text in rows:
        if ph not in unseen and model not in hidden:
            call = CallFeatures.from_prompt(text, model=model)
            trained.append(RecordedReply(call, text, float(tokens), 0.0))
        elif ph in unseen and (model in hidden or model == TEACHER):
            kept[route, model].append((route, text, float(tokens)))
        if ph in unseen and model in (TEACHER, "gpt-4-0314") and drawn[route] < MIXED_MAX:
            drawn[route] += 1
            kept["(the GPT-4 mix)", ""].append((route, text, float(tokens)))
    return trained, list(_streams(kept, chance))


def _streams(
    kept: dict[tuple[str, str], list[tuple[str, str, float]]], chance: np.random.Generator
) -> Iterator[tuple[str, Stream]]:
    for (name, _), found in sorted(kept.items()):
        for _ in range(ORDERS):
            order = chance.permutation(len(found))[:FIRST]
            rows = [found[at] for at in order]
            if len(rows) == FIRST:
                yield (
                    name,
                    [
                        (CallFeatures.from_prompt(text, model="new", route=route), tokens)
                        for route, text, tokens in rows
                    ],
                )


if __name__ == "__main__":
    for name in sys.argv[1:] or ["cold", "first"]:
        {"cold": cold, "first": first}[name]()
