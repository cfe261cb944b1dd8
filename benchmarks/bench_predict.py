"""What a prediction costs, how good it is beside the field, and how drift is met.

Run: python benchmarks/bench_predict.py [cost|field|drift ...]. Needs the public prompts in
$PENSTOCK_DATA or ../shared/data; `field` needs lightgbm. Everything is seeded; costs are CPU
time of the thread, so that a busy machine distorts them less.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

from penstock.predict import CallFeatures, OnlinePredictor
from penstock.predict.evaluate import score
from penstock.predict.features.call import DENSE_NAMES
from penstock.predict.prior.folds import FoldPriors
from penstock.predict.train.datasets import Lesson, RecordedReply, lesson
from penstock.predict.train.shared import learner, train_folds
from penstock.predict.train.training import train_predictor

ROOT = Path(__file__).resolve().parent.parent
SPLITS = 3
TEACHER = "gpt-4(gpteacher)"
CLAIRVOYANT_LIKE = (
    "user_tokens", "words", "word_chars", "unique_share", "lines", "line_chars",
    "last_line_chars", "first_line_chars", "asked_tokens", "has_asked", "questions", "fences",
    "names_json", "share_upper", "share_digit", "share_bracket", "share_operator", "share_quote",
    "share_stop",
)  # fmt: skip
Rows = list[tuple[str, Lesson]]
Estimates = tuple[NDArray[np.float64], NDArray[np.float64]]


def prompts() -> list[tuple[str, str, str, int, str]]:
    """Return (route, prompt id, model, output tokens, prompt) of the public data."""
    folder = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data")) / "prompts"
    if not folder.is_dir():
        sys.exit(f"{folder} is missing: set PENSTOCK_DATA to the folder of public data")
    texts = {
        (row["route"], row["ph"]): row["prompt"]
        for row in parquet.read_table(folder / "prompts.parquet").to_pylist()
    }
    return [
        (row["route"], row["ph"], row["model"], row["out_tok"], texts[row["route"], row["ph"]])
        for row in parquet.read_table(folder / "lengths.parquet").to_pylist()
        if (row["route"], row["ph"]) in texts
    ]


def gpt4_mix() -> Rows:
    """Return (prompt id, lesson) of the GPT-4 mix without chat."""
    chosen = []
    taught: dict[str, list[tuple[str, str, str, int, str]]] = defaultdict(list)
    for row in prompts():
        if row[2] == "gpt-4-0314":
            chosen.append(row)
        elif row[2] == TEACHER:
            taught[row[0]].append(row)
    for rows in taught.values():
        chosen += sorted(rows, key=lambda row: row[1])[:1500]
    return [
        (ph, lesson(CallFeatures.from_prompt(text, model=model, route=route), tokens))
        for route, ph, model, tokens, text in chosen
    ]


def split(rows: Rows, seed: int) -> tuple[list[Lesson], list[Lesson]]:
    """Return 70 % of the prompts' rows and the others, by prompt."""
    ids = sorted({ph for ph, _ in rows})
    np.random.default_rng(seed).shuffle(ids)
    train = set(ids[: round(0.7 * len(ids))])
    return [item for ph, item in rows if ph in train], [i for ph, i in rows if ph not in train]


def constant(train: Sequence[Lesson], test: Sequence[Lesson]) -> Estimates:
    """One median and p90 for all."""
    values = [item.log_tokens for item in train]
    ones = np.ones(len(test))
    return np.quantile(values, 0.5) * ones, np.quantile(values, 0.9) * ones


def max_tokens(train: Sequence[Lesson], test: Sequence[Lesson]) -> Estimates:
    """What a proxy reserves that believes `max_tokens`: 4,096 for each."""
    ones = np.ones(len(test))
    return np.log(4096) * ones, np.log(4096) * ones


def per_route(train: Sequence[Lesson], test: Sequence[Lesson]) -> Estimates:
    """Median and p90 of each route."""
    values = defaultdict(list)
    for item in train:
        values[item.call.route].append(item.log_tokens)
    return tuple(  # type: ignore[return-value]
        np.array([np.quantile(values[item.call.route], q) for item in test]) for q in (0.5, 0.9)
    )


def neighbours(train: Sequence[Lesson], test: Sequence[Lesson]) -> Estimates:
    """SageSched-like: 20 nearest in an embedding, here 64 latent semantic dimensions."""
    size, dimensions = 1 << 12, 64

    def matrix(items: Sequence[Lesson]) -> NDArray[np.float32]:
        out = np.zeros((len(items), size), np.float32)
        for row, item in enumerate(items):
            np.add.at(out[row], item.call.grams.astype(int) % size, 1.0)
        return out

    a, b = matrix(train), matrix(test)
    weight = np.log(len(a) / (1.0 + np.count_nonzero(a, axis=0)))
    a, b = a * weight, b * weight
    sketch = a @ np.random.default_rng(0).normal(size=(size, dimensions + 16)).astype(np.float32)
    basis, _ = np.linalg.qr(a.T @ (a @ (a.T @ sketch)))
    basis = basis[:, : dimensions + 16]
    _, _, turned = np.linalg.svd(a @ basis, full_matrices=False)
    project = basis @ turned[:dimensions].T

    def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        low = rows @ project
        out: NDArray[np.float32] = low / np.maximum(
            1e-9, np.linalg.norm(low, axis=1, keepdims=True)
        )
        return out

    nearest = np.argsort(-(unit(b) @ unit(a).T), axis=1, kind="stable")[:, :20]
    values = np.array([item.log_tokens for item in train])[nearest]
    return np.quantile(values, 0.5, axis=1), np.quantile(values, 0.9, axis=1)


def clairvoyant(train: Sequence[Lesson], test: Sequence[Lesson]) -> Estimates:
    """Boosted classifier of the four buckets on 19 lexical features, as that paper describes."""
    import lightgbm

    columns = [DENSE_NAMES.index(name) for name in CLAIRVOYANT_LIKE]
    logs = np.array([item.log_tokens for item in train])
    buckets = np.searchsorted(np.log([64, 256, 1024]), logs)
    data = lightgbm.Dataset(np.stack([item.call.dense[columns] for item in train]), buckets)
    options = {"objective": "multiclass", "num_class": 4, "verbosity": -1, "num_threads": 1}
    model = lightgbm.train(options | {"seed": 0}, data, num_boost_round=200)
    said = np.asarray(model.predict(np.stack([item.call.dense[columns] for item in test])))
    quantiles = [
        [np.quantile(logs[buckets == b], q) if (buckets == b).any() else 7.5 for b in range(4)]
        for q in (0.5, 0.9)
    ]
    likely = said.argmax(1)
    return np.array(quantiles[0])[likely], np.array(quantiles[1])[likely]


def penstock_with(
    name: str, *, told: bool = False
) -> Callable[[Sequence[Lesson], Sequence[Lesson]], Estimates]:
    """Return penstock's own predictor, frozen after training.

    If it is told, then by fold priors made as the shipped ones are, without the test's prompts.
    """

    def run(train: Sequence[Lesson], test: Sequence[Lesson]) -> Estimates:
        folds = folds_without(test) if told else None
        predictor = train_predictor(train, learner(name, wider=None, folds=folds))
        said = [predictor.predict(item.call) for item in test]
        return np.log([s.p50_tokens for s in said]), np.log([s.p90_tokens for s in said])

    return run


def folds_without(test: Sequence[Lesson]) -> FoldPriors:
    """Return fold priors of all public replies, except those to prompts of the test."""
    seen = {item.call.grams.tobytes() for item in test}
    replies = []
    for _, _, model, tokens, text in prompts():
        call = CallFeatures.from_prompt(text, model=model, route="")
        if call.grams.tobytes() not in seen:
            replies.append(RecordedReply(call, text, tokens, 0.0))
    return train_folds(replies)


def field() -> None:
    """Print the table of methods, mean over the splits."""
    rows = gpt4_mix()
    methods = {
        "constant": constant,
        "max_tokens (4,096)": max_tokens,
        "per-route quantiles": per_route,
        "embedding, 20 neighbours": neighbours,
        "19 features, boosted classifier": clairvoyant,
        "penstock, numpy only": penstock_with("numpy"),
        "penstock, LightGBM, --prior none": penstock_with("boosted"),
        "penstock, LightGBM": penstock_with("boosted", told=True),
    }
    print("| method | bucket accuracy | pair ranking | error | pinball p90 | p90 coverage |")
    print("|---|---|---|---|---|---|")
    for name, method in methods.items():
        pairs = [split(rows, seed) for seed in range(SPLITS)]
        print_row(name, [(test, method(train, test)) for train, test in pairs])


def print_row(name: str, results: Sequence[tuple[Sequence[Lesson], Estimates]]) -> None:
    """Print a line of the table from (lessons, their estimates) of each split."""
    figures = []
    for test, (p50, p90) in results:
        lengths = np.exp([item.log_tokens for item in test])
        s = score(lengths, np.exp(p50), np.exp(np.maximum(p50, p90)))
        figures.append([
            s.bucket_accuracy, s.pair_ranking, s.median_multiplicative_error,
            s.pinball_p90_log, s.p90_coverage,
        ])  # fmt: skip
    a, r, e, p, c = np.mean(np.array(figures, float), axis=0)
    print(f"| {name} | {a:.3f} | {r:.3f} | x{e:.3f} | {p:.3f} | {c:.3f} |", flush=True)


def cost() -> None:
    """Print CPU time of reading, predicting and learning (a batch's spread), by size of the prompt.

    Medians; of learning the mean, as sixteen replies are learned together.
    """
    rows = prompts()
    predictor = OnlinePredictor.shipped()
    order = np.random.default_rng(0).permutation(len(rows))
    for at in order[:600]:
        route, _, model, tokens, text = rows[at]
        predictor.learn(CallFeatures.from_prompt(text, route=route, model=model), tokens)
    corpus = "\n".join(rows[at][4] for at in order[:400])
    text = json.dumps({"messages": [{"role": "user", "content": corpus[:2000]}]})
    begun = time.thread_time()
    for _ in range(2000):
        json.loads(text)
    scale_us = (time.thread_time() - begun) / 2000 * 1e6
    print(f"for scale: json.loads of 2 kB takes {scale_us:.1f} us here")
    for size in (200, 2_000, 50_000):
        took: dict[str, list[float]] = defaultdict(list)
        for at in range(400):
            text = corpus[at * 97 : at * 97 + size]
            body = {"model": "m", "messages": [{"role": "user", "content": text}]}
            a = time.thread_time()
            call = CallFeatures.from_body(body, endpoint="chat", route="bench")
            b = time.thread_time()
            predictor.predict(call)
            c = time.thread_time()
            predictor.learn(call, 200)
            d = time.thread_time()
            for name, seconds in (("read", b - a), ("predict", c - b), ("learn", d - c)):
                took[name].append(seconds)
        each = {name: float(np.median(v)) for name, v in took.items()}
        each["learn"] = float(np.mean(took["learn"]))
        shown = ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in each.items())
        print(f"prompt of {size:,} characters: {shown}")


def drift() -> None:
    """Print p90 coverage per 100 replies after the model behind one route changed."""
    rows = prompts()
    changes = (
        ("crux", "gpt-4-0314", "gpt-4o-2024-08-06"),
        ("gsm", "gpt-3.5-turbo-0125", "claude-3-5-haiku-20241022"),
        ("gsm", "claude-3-5-haiku-20241022", "gpt-3.5-turbo-0125"),
        ("math", "gpt-4-0314", "grok-2-1212"),
    )
    for route, before, after in changes:
        covered = []
        for seed in range(5):
            predictor = OnlinePredictor.cold()
            chance = np.random.default_rng(seed)
            for phase, model in ((0, before), (1, after)):
                chosen = [row for row in rows if row[0] == route and row[2] == model]
                hits = []
                for at in chance.permutation(len(chosen)):
                    _, _, _, tokens, text = chosen[at]
                    call = CallFeatures.from_prompt(text, route=route, model="alias")
                    hits.append(tokens <= predictor.predict(call).p90_tokens)
                    predictor.learn(call, tokens)
                if phase:
                    covered.append(hits)
        length = min(map(len, covered)) // 100 * 100
        parts = np.array([hits[:length] for hits in covered], float).reshape(5, -1, 100)
        shown = " ".join(f"{share:.2f}" for share in parts.mean(axis=(0, 2)))
        tail = np.array([hits[300:] for hits in covered], dtype=object)
        rest = float(np.mean([np.mean(hits) for hits in tail]))
        print(f"{route}: {before} -> {after}: per 100 replies {shown}; after 300: {rest:.3f}")


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["cost", "drift", "field"]
    for name in chosen:
        {"cost": cost, "field": field, "drift": drift}[name]()
