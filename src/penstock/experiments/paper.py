"""Read `paper/`: what the experiments start from, what each varies, and what was published."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import penstock
from penstock.errors import ConfigError
from penstock.experiments.measure import SimulationJob, Table, overlay
from penstock.schema.problem import refuse_unknown
from penstock.schema.reading import read_toml

_SCENARIO_KEYS = ("provider", "workload", "classes")
_EXPERIMENT_KEYS = (
    *("title", "text", "regimes", "extra_regimes", "plots", "columns", "variants", "policy"),
    *_SCENARIO_KEYS,
)
_VARIANT_KEYS = ("label", "policy", *_SCENARIO_KEYS)
_SPECIAL = ("base", "published", "worlds", "regret", "live")


@dataclass(frozen=True, slots=True)
class Regime:
    """A workload mix at a congestion, as the tables of a scenario."""

    name: str
    scenario: Table


@dataclass(frozen=True, slots=True)
class Variant:
    """What one row of an experiment changes."""

    name: str
    label: str
    scenario: Table
    policy: Table


@dataclass(frozen=True, slots=True)
class Experiment:
    """A grid of regimes and variants, each run with several seeds."""

    name: str
    title: str
    text: str
    regimes: tuple[Regime, ...]
    variants: tuple[Variant, ...]
    plots: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def jobs(self, seeds: int) -> dict[tuple[str, str], list[SimulationJob]]:
        """Return the jobs by (regime, variant), one for each seed from 1."""
        return {
            (regime.name, variant.name): [
                SimulationJob(overlay(regime.scenario, variant.scenario), variant.policy, seed)
                for seed in range(1, seeds + 1)
            ]
            for regime in self.regimes
            for variant in self.variants
        }


@dataclass(frozen=True, slots=True)
class Paper:
    """All specifications, read and checked.

    Attributes:
        base: base.toml as it stands: provider, workload, mixes, regimes, statistics.
        experiments: by name, in the order of the report.
        published: published.toml, by claim.
        special: the tables of worlds, regret and live, which are not grids.

    """

    base: Table
    experiments: Mapping[str, Experiment]
    published: Mapping[str, Table]
    special: Mapping[str, Table] = field(default_factory=dict)


def paper_directory() -> Path:
    """Return where the specifications are: in the installed package, or in the checkout.

    Raises:
        ConfigError: they are in neither.

    """
    package = Path(penstock.__file__).parent
    for place in (package / "experiments" / "paper", package.parents[1] / "paper"):
        if (place / "base.toml").is_file():
            return place
    raise ConfigError(
        f"the specifications (paper/*.toml) are neither in {package / 'experiments'} nor in "
        f"{package.parents[1]}: was penstock installed from a wheel without them?"
    )


ORDER = ("policies", "information", "noise", "overload", "allocation", "ablation", "sensitivity")
"""The grid experiments in the order of the report; others follow by name."""


def read_paper(directory: Path, base: Table | None = None) -> Paper:
    """Return the specifications in a directory.

    Args:
        directory: holds base.toml, published.toml and one file for each experiment.
        base: takes the place of base.toml (a perturbed world); None to read it.

    Raises:
        ConfigError: a file is missing, is no TOML, or has keys that nobody reads.

    """
    base = read_toml(directory / "base.toml") if base is None else base
    names = [path.stem for path in sorted(directory.glob("*.toml")) if path.stem not in _SPECIAL]
    ordered = [n for n in ORDER if n in names] + [n for n in names if n not in ORDER]
    return Paper(
        base=base,
        experiments={
            name: read_experiment(name, read_toml(directory / f"{name}.toml"), base)
            for name in ordered
        },
        published=read_toml(directory / "published.toml"),
        special={
            name: read_toml(directory / f"{name}.toml")
            for name in _SPECIAL[2:]
            if (directory / f"{name}.toml").is_file()
        },
    )


def read_experiment(name: str, table: Table, base: Table) -> Experiment:
    """Return the experiment that a table describes.

    Raises:
        ConfigError: a key that nobody reads, or a regime that does not exist.

    """
    refuse_unknown(table, _EXPERIMENT_KEYS, where=f"{name}.toml")
    for key, value in table["variants"].items():
        refuse_unknown(value, _VARIANT_KEYS, where=f"{name}.toml: variants.{key}")
    return Experiment(
        name=name,
        title=table["title"],
        text=table.get("text", "").strip(),
        regimes=tuple(
            Regime(regime.name, overlay(regime.scenario, _scenario_part(table)))
            for regime in _regimes(name, table, base)
        ),
        variants=tuple(
            Variant(
                key,
                value.get("label", key),
                _scenario_part(value),
                overlay(table.get("policy", {}), value.get("policy", {})),
            )
            for key, value in table["variants"].items()
        ),
        plots=tuple(table.get("plots", ())),
        columns=tuple(table.get("columns", ())),
    )


def base_regimes(base: Table) -> dict[str, Regime]:
    """Return the regimes that base.toml lists, by name."""
    return {name: read_regime(name, table, base) for name, table in base["regimes"].items()}


def read_regime(name: str, table: Table, base: Table) -> Regime:
    """Return the regime: the base with its mix, its rate and whatever else it states.

    Raises:
        ConfigError: its mix is not one of the base's.

    """
    rest = dict(table)
    mix = rest.pop("mix")
    if mix not in base["mixes"]:
        raise ConfigError(f"regimes.{name}.mix = {mix!r}: must be one of {sorted(base['mixes'])}")
    given = {key: rest.pop(key) for key in _SCENARIO_KEYS if key in rest}
    common = {
        "provider": base["provider"],
        "workload": overlay(base["workload"], {**rest, "mix": base["mixes"][mix]}),
    }
    return Regime(name, overlay(common, given))


def _scenario_part(table: Table) -> dict[str, Any]:
    return {key: table[key] for key in _SCENARIO_KEYS if key in table}


def _regimes(name: str, table: Table, base: Table) -> list[Regime]:
    known = base_regimes(base)
    wanted = table.get("regimes", "all")
    names = list(known) if wanted == "all" else list(wanted)
    for regime in names:
        if regime not in known:
            raise ConfigError(f"{name}.toml: regimes: {regime!r} must be one of {list(known)}")
    extra = table.get("extra_regimes", {})
    return [known[n] for n in names] + [read_regime(n, t, base) for n, t in extra.items()]
