import tomllib
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.experiments.claims import CLAIMS
from penstock.experiments.measure import SimulationJob
from penstock.experiments.paper import paper_directory, read_experiment, read_paper
from penstock.sim.scenario import read_scenario
from tests.experiments.specimens import base

PAPER = read_paper(paper_directory())


def check(job: SimulationJob) -> None:
    """Refuse what the simulator would refuse, without running it."""
    read_scenario({**job.scenario, "policies": {"it": job.policy}})


@pytest.mark.parametrize("name", PAPER.experiments)
def test_every_cell_of_every_specification_is_a_scenario_that_can_run(name: str) -> None:
    for jobs in PAPER.experiments[name].jobs(1).values():
        check(jobs[0])


def test_the_four_regimes_are_mix_by_congestion() -> None:
    experiment = PAPER.experiments["policies"]

    assert [r.name for r in experiment.regimes] == [
        "balanced/medium",
        "balanced/high",
        "heavy/medium",
        "heavy/high",
    ]
    high = experiment.regimes[1].scenario["workload"]
    assert high["rate_per_s"] == 5.8
    assert high["mix"] == {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}


def test_a_variant_changes_what_it_names_and_nothing_else() -> None:
    jobs = PAPER.experiments["noise"].jobs(2)
    clean, noisy = jobs[("heavy/high", "noise_00")][0], jobs[("heavy/high", "noise_60")][0]

    assert noisy.scenario["workload"] == {**clean.scenario["workload"], "noise": 0.6}
    assert noisy.scenario["provider"] == clean.scenario["provider"]
    assert [job.seed for job in jobs[("heavy/high", "noise_60")]] == [1, 2]


def test_every_claim_has_its_published_figure_its_band_and_its_experiments() -> None:
    for claim in CLAIMS:
        table = PAPER.published[claim.id]
        assert {"title", "published", "band", "statement", "rule"} <= table.keys()
        for experiment, variants in claim.needs.items():
            known = {v.name for v in PAPER.experiments[experiment].variants}
            assert set(variants) <= known


def test_one_default_configuration_serves_all_regimes() -> None:
    for name in ("policies", "information", "noise"):
        for (_, variant), jobs in PAPER.experiments[name].jobs(1).items():
            if name != "policies" or variant == "full":
                assert jobs[0].policy == {}


def specification(**changes: Any) -> dict[str, Any]:
    table = tomllib.loads((paper_directory() / "noise.toml").read_text("utf-8"))
    return {**table, **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"regime": ["all"]}, "regime: is no key.*did you mean regimes"),
        ({"regimes": ["calm"]}, "'calm' must be one of"),
        ({"variants": {"a": {"polcy": {}}}}, "variants.a.polcy: is no key"),
        (
            {"extra_regimes": {"x": {"mix": "odd", "rate_per_s": 1.0}}},
            "regimes.x.mix = 'odd': must be one of",
        ),
    ],
)
def test_a_specification_with_a_mistake_is_refused_by_name(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_experiment("noise", specification(**changes), base())


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("provider = ", "utf-8")

    with pytest.raises(ConfigError, match=r"base\.toml: is not TOML"):
        read_paper(tmp_path)
    with pytest.raises(ConfigError, match=r"base\.toml: cannot be read"):
        read_paper(tmp_path / "nowhere")
