"""What the predictor's errors cost end to end: deadlines met, beside a scheduler that knows all.

Run: python benchmarks/bench_predict_endtoend.py. Seeded, on a virtual clock, needs no data: errors
are those of `prior/error_sample.csv.gz`. Loads are shares of what eight slots can serve.
"""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path

from penstock.sim.scenario import load_scenario
from penstock.sim.simulate import simulate

SEEDS = [1, 2, 3, 4, 5]
SLOTS, TOKENS_PER_S, TTFT_S = 8, 200.0, 0.15
LOADS = (0.5, 0.7, 0.9, 1.1, 1.4)
MEAN_TOKENS = {"short": 34.6, "medium": 139.3, "long": 554.8, "xlong": 2216.8}  # loguniform
MIXES = {
    "lengths as in the GPT-4 mix": {
        "short": 0.405,
        "medium": 0.47,
        "long": 0.1223,
        "xlong": 0.0027,
    },
    "heavy (the scenario's default)": {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1},
}


def met(information: str, mix: dict[str, float], rate_per_s: float, folder: Path) -> float:
    """Return the share of requests answered in time by the default stack, mean over the seeds."""
    errors = resources.files("penstock.predict") / "prior" / "error_sample.csv.gz"
    shares = ", ".join(f"{name} = {share}" for name, share in mix.items())
    predictions = f'predictions = "{errors}"' if information == "predicted" else ""
    scenario = folder / "scenario.toml"
    scenario.write_text(
        f"""seeds = {SEEDS}
[provider]
model = "slots"
slots = {SLOTS}
tokens_per_s = {TOKENS_PER_S}
ttft_s = {TTFT_S}
[workload]
requests = 1000
rate_per_s = {rate_per_s}
mix = {{ {shares} }}
information = "{information}"
{predictions}
[policies.penstock]
"""
    )
    rows = [result.row() for result in simulate(load_scenario(scenario), processes=1)]
    return sum(float(row["deadline_satisfaction"]) for row in rows) / len(rows)


def main() -> None:
    """Print a table per mix."""
    for name, mix in MIXES.items():
        service_s = TTFT_S + sum(mix[b] * MEAN_TOKENS[b] for b in mix) / TOKENS_PER_S
        print(f"{name}\n| load | requests a second | predicted | oracle | share |")
        print("|---|---|---|---|---|")
        for load in LOADS:
            rate = round(load * SLOTS / service_s, 2)
            with tempfile.TemporaryDirectory() as folder:
                told, truth = (met(i, mix, rate, Path(folder)) for i in ("predicted", "oracle"))
            print(
                f"| {load} | {rate} | {told:.1%} | {truth:.1%} | {told / truth:.1%} |", flush=True
            )


if __name__ == "__main__":
    main()
