from penstock.experiments.paper import Experiment, Regime, Variant
from penstock.experiments.results import Cell, Results
from penstock.experiments.tables import is_better, losses
from tests.experiments.specimens import outcome


def seeds(*p95_s: float) -> Cell:
    return Cell(tuple(outcome(short_p95_s=value) for value in p95_s))


def test_a_rival_that_is_better_in_every_seed_is_named() -> None:
    variants = tuple(Variant(name, name, {}, {}) for name in ("full", "direct"))
    grid = Experiment("policies", "Policies", "", (Regime("heavy/high", {}),), variants)
    cells = {
        ("policies", "heavy/high", "full"): seeds(0.50, 0.60, 0.55),
        ("policies", "heavy/high", "direct"): seeds(0.40, 0.50, 0.45),
    }

    (loss,) = losses(Results({"policies": grid}, cells))

    assert (loss.regime, loss.rival, loss.figure) == ("heavy/high", "direct", "short_p95_s")


def test_seeds_are_compared_one_by_one_so_a_small_steady_gain_counts() -> None:
    assert is_better(seeds(0.97, 1.94, 3.88), seeds(1.0, 2.0, 4.0), "short_p95_s")


def test_a_gain_in_some_seeds_and_a_loss_in_others_is_noise() -> None:
    assert not is_better(seeds(0.2, 0.9, 0.4), seeds(0.5, 0.4, 0.6), "short_p95_s")


def test_a_gain_below_two_per_cent_is_not_worth_a_line() -> None:
    assert not is_better(seeds(0.99, 0.99), seeds(1.0, 1.0), "short_p95_s")


def test_where_nothing_completed_nothing_is_compared() -> None:
    silent = Cell((outcome(), outcome()))
    for run in silent.runs:
        run.figures["short_p95_s"] = None  # type: ignore[index]

    assert not is_better(silent, seeds(0.5, 0.5), "short_p95_s")
