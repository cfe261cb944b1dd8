"""The scenario format: what it says by default, what it refuses, and with which words."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from penstock.core.events import Action, Dispatch, Event
from penstock.core.settings import PolicySpec, Stack
from penstock.errors import ConfigError
from penstock.sim.scenario import load_scenario, read_scenario
from penstock.sim.simulate import run_one, simulate

ISSUE = """
seeds = [1, 2]
[provider]
model = "slots"
slots = 8
tokens_per_s = 200.0
ttft_s = 0.15
[workload]
requests = 60
rate_per_s = 3.0
arrivals = "poisson"
mix = { short = 0.4, medium = 0.3, long = 0.2, xlong = 0.1 }
tokens = "loguniform"
deadline_s = { short = 1.0, medium = 4.0, long = 15.0, xlong = 60.0 }
information = "coarse"
noise = 0.0
[policies.default]
[policies.fifo]
allocation = "fifo"
ordering = "fifo"
overload = "always_admit"
capacity = { kind = "fixed", window = 8 }
"""


def scenario_file(folder: Path, text: str = ISSUE) -> Path:
    path = folder / "scenario.toml"
    path.write_text(text, "utf-8")
    return path


def tables(**workload: Any) -> dict[str, Any]:
    return {"provider": {"model": "slots"}, "workload": {"rate_per_s": 3.0, **workload}}


def test_the_published_example_is_understood(tmp_path: Path) -> None:
    found = load_scenario(scenario_file(tmp_path))

    assert found.seeds == (1, 2)
    assert list(found.policies) == ["default", "fifo"]
    assert found.policies["default"].stack == Stack()
    assert found.policies["fifo"].stack == Stack(
        PolicySpec("fifo"),
        PolicySpec("fifo"),
        PolicySpec("always_admit"),
        PolicySpec("fixed", {"window": 8}),
    )


def test_what_is_left_out_is_the_papers_setting() -> None:
    found = read_scenario(tables())

    assert found.seeds == (1, 2, 3, 4, 5)
    assert found.workload.calls == 400
    assert found.workload.mix == {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}
    assert found.workload.deadline_s["xlong"] == 60.0
    assert list(found.policies) == ["default"]
    assert [plan.name for plan in found.classes] == ["interactive", "heavy"]


def test_rows_have_exactly_the_keys_of_the_interface(tmp_path: Path) -> None:
    results = simulate(load_scenario(scenario_file(tmp_path)))

    assert [(r.policy, r.seed) for r in results] == [
        ("default", 1),
        ("default", 2),
        ("fifo", 1),
        ("fifo", 2),
    ]
    assert set(results[0].row()) == {
        "policy",
        "seed",
        "short_p95_s",
        "short_p90_s",
        "long_p90_s",
        "p95_s",
        "makespan_s",
        "completion_rate",
        "deadline_satisfaction",
        "useful_goodput_per_s",
        "deferrals",
        "shed",
    }
    assert set(results[0].row()["shed"]) == {"short", "medium", "long", "xlong"}


def test_several_processes_give_the_same_results_in_the_same_order(tmp_path: Path) -> None:
    plan = load_scenario(scenario_file(tmp_path))
    told: list[tuple[int, int]] = []

    alone = simulate(plan)
    together = simulate(plan, processes=2, progress=lambda done, of: told.append((done, of)))

    assert together == alone
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


NOISY = """
seeds = [1]
[providers.engine]
model = "batching"
cached_share = 0.5
spells = { factor = 0.2, every_s = 20, for_s = 4 }
[providers.cloud]
model = "cloud"
outside = "walk"
stragglers = { share = 0.1, factor = 5 }
keeps_cancelled = true
[providers.pool]
model = "pool"
jitter = 0.5
limits = { rpm = 60, silent = true }
[providers.scaling]
model = "autoscale"
prefill_tokens_per_s = 5000
[workload]
rate_per_s = 12
stream = 0.5
prompt_tokens = { median = 800, sigma = 1.0 }
"""


def test_results_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    paths = []
    for name, text in (("issue.toml", ISSUE), ("noisy.toml", NOISY)):
        paths.append(tmp_path / name)
        paths[-1].write_text(text, "utf-8")
    code = (
        "import sys; from pathlib import Path; from penstock.sim.scenario import load_scenario; "
        "from penstock.sim.simulate import simulate; "
        "print([[r.row() for r in simulate(load_scenario(Path(p)))] for p in sys.argv[1:]])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, *map(str, paths)],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }

    assert len(outputs) == 1


def test_every_policy_meets_the_same_world(tmp_path: Path) -> None:
    plan = load_scenario(scenario_file(tmp_path))

    one, other = (run_one(plan, policy, 1).records for policy in ("default", "fifo"))

    assert [(r.arrived_at, r.bucket) for r in one] == [(r.arrived_at, r.bucket) for r in other]


@pytest.mark.parametrize(
    "shape",
    [
        {"arrivals": "gamma", "cv": 3.0},
        {"arrivals": "bursts", "on_s": 5.0, "off_s": 10.0},
        {"arrivals": "diurnal", "period_s": 60.0, "amplitude": 0.9},
    ],
    ids=lambda shape: str(shape["arrivals"]),
)
@pytest.mark.parametrize("information", ["none", "class", "coarse", "oracle"])
def test_every_arrival_process_runs_at_every_level(shape: dict[str, Any], information: str) -> None:
    plan = read_scenario(tables(requests=30, information=information, **shape))

    records = run_one(plan, "default", 1).records

    assert len(records) == 30


def test_classes_may_be_any_partition_of_the_buckets() -> None:
    document = tables(requests=30)
    document["classes"] = {
        "chat": {"buckets": ["short", "medium"], "weight": 2.0},
        "reports": {"buckets": ["long"]},
        "batch": {"buckets": ["xlong"]},
    }

    plan = read_scenario(document)

    assert len(run_one(plan, "default", 1).records) == 30


def test_recorded_errors_of_a_predictor_are_told_in_place_of_the_bucket(tmp_path: Path) -> None:
    (tmp_path / "errors.csv").write_text("actual,p50,p90\n100,200,400\n", "utf-8")
    document = tables(requests=20, information="predicted", predictions="errors.csv")

    plan = read_scenario(document, folder=tmp_path)

    for load in plan.workload.build(1, plan.classes).loads:
        assert load.request.estimate.p50_tokens == pytest.approx(2 * load.output_tokens)


@pytest.mark.parametrize("text", ["", "actual,p50,p90\nx,1,2\n", "actual,p50,p90\n9,8\n", "a\n1\n"])
def test_predictions_that_cannot_be_used_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "errors.csv").write_text(text, "utf-8")

    with pytest.raises(
        ConfigError, match=r"workload\.predictions = 'errors.csv': .*: cannot be used"
    ):
        read_scenario(tables(information="predicted", predictions="errors.csv"), folder=tmp_path)


def test_several_upstreams_share_the_load() -> None:
    document = tables(requests=200, rate_per_s=6.0)
    del document["provider"]
    document["providers"] = {"east": {"model": "slots"}, "west": {"model": "slots", "slots": 4}}
    plan = read_scenario(document)
    sent: Counter[str] = Counter()

    def watch(_now: float, _event: Event, actions: list[Action]) -> None:
        sent.update(a.upstream for a in actions if isinstance(a, Dispatch))

    records = run_one(plan, "default", 1, watch=watch).records

    assert len(records) == 200
    assert set(sent) == {"east", "west"}
    assert min(sent.values()) > 20


def test_capacity_that_changes_in_mid_run_shows() -> None:
    document = tables(requests=200, mix={"long": 1.0})
    calm = simulate(read_scenario(document))[0].metrics
    document["provider"] = {"model": "slots", "changes": [{"at_s": 5.0, "slots": 1}]}
    choked = simulate(read_scenario(document))[0].metrics

    assert calm.makespan_s is not None
    assert choked.makespan_s is not None
    assert choked.makespan_s > 2 * calm.makespan_s


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"extra": 1}, "extra = 1: is no key of this table (there are seeds, provider"),
    ({"provider": 5}, "provider = 5: must be a table"),
    (
        {"providers": {"a": {"model": "slots"}}},
        "must not stand beside provider",
    ),
    ({"provider": {"model": "slots", "slots": 0}}, "provider.slots = 0: must be a whole number"),
    ({"workload": None}, "workload = None: must be a table"),
    ({"seeds": []}, "seeds = []: must be a list of different whole numbers >= 0"),
    ({"seeds": [1, 1]}, "seeds = [1, 1]: must be a list of different"),
    ({"seeds": [-1]}, "seeds[0] = -1: must be a whole number, 0 or more"),
    ({"seeds": [True]}, "seeds[0] = True: must be a whole number"),
    ({"seeds": 5}, "seeds = 5: must be a list"),
    ({"policies": []}, "policies = []: must be tables"),
    ({"policies": {"a": 1}}, "policies.a = 1: must be a table"),
    ({"policies": {"a": {"allocation": "x"}}}, "policies.a.allocation"),
    ({"policies": {"a": {"allocation": 5}}}, "policies.a.allocation = 5: must be a policy's name"),
    ({"policies": {"a": {"alocation": "fifo"}}}, "did you mean allocation?"),
    (
        {"policies": {"a": {"capacity": {"window": 8}}}},
        "policies.a.capacity = a table: must be a",
    ),
    (
        {"policies": {"a": {"capacity": {"kind": "fixed", "windw": 8}}}},
        "policies.a.capacity.windw = 8: is no option of fixed (did you mean window?)",
    ),
    ({"policies": {"a": {"queue_limit": 0}}}, "policies.a.queue_limit = 0: must be a whole"),
    ({"policies": {"a": {"limits": 5}}}, "policies.a.limits = 5: must be a table"),
    (
        {"policies": {"a": {"limits": {"requests_per_min": 0}}}},
        "policies.a.limits.requests_per_min = 0: must be a number, from 0.001 to 1e+12",
    ),
    ({"classes": {}}, "classes = {}: must be tables"),
    ({"classes": {"a": 5}}, "classes.a = 5: must be a table"),
    ({"classes": {"a": {"buckets": ["short"]}}}, "each of short, medium, long, xlong must be in"),
    ({"classes": {"a": {"buckets": ["tiny"]}}}, "classes.a.buckets[0] = 'tiny': must be one of"),
    ({"classes": {"a": {"buckets": [], "wait": 1}}}, "classes.a.wait = 1: is no key of this table"),
    ({"classes": {"a": {}}}, "classes.a.buckets: is missing: it must be a list of 1 or more"),
    ({"classes": {"a": {"buckets": []}}}, "classes.a.buckets = []: must be a list"),
    ({"classes": {"a": {"buckets": [["short"]]}}}, "classes.a.buckets[0] = a list: must be one of"),
    ({"policies": {"a": {"limits": {}}}}, "policies.a.limits: states no limit: must have at"),
    (
        {"policies": {"a": {"overload": {"kind": "cost_ladder", "defer_at": 3}}}},
        "policies.a.overload.defer_at = 3: must be a table of severities by rung",
    ),
]
REFUSED_WORKLOADS: list[tuple[dict[str, Any], str]] = [
    ({"request": 5}, "workload.request = 5: is no key of this table (did you mean requests?)"),
    ({"requests": 0}, "workload.requests = 0: must be a whole number >= 1"),
    ({"rate_per_s": 0}, "workload.rate_per_s = 0: must be a finite number >= 1e-6"),
    ({"rate_per_s": "3"}, "workload.rate_per_s = '3': must be a finite number >= 1e-6"),
    ({"rate_per_s": None}, "workload.rate_per_s: is missing"),
    ({"arrivals": "poison"}, "workload.arrivals = 'poison': must be one of poisson, gamma"),
    ({"arrivals": "gamma"}, "workload.arrivals = 'gamma': needs cv"),
    ({"cv": 2.0}, "workload.cv = 2.0: only for arrivals = 'gamma', not 'poisson'"),
    (
        {"arrivals": "diurnal", "period_s": 9, "amplitude": 1.5},
        "workload.amplitude = 1.5: must be a finite number >= 1e-6 and <= 1",
    ),
    ({"requests": 10**12}, "must be a whole number >= 1 and <= 10000000, as all are held in mem"),
    ({"requests": 10**400}, "workload.requests = a number of more than 30 digits: must be a"),
    ({"rate_per_s": 1e-300}, "workload.rate_per_s = 1e-300: must be a finite number >= 1e-6 and"),
    ({"rate_per_s": 1e-20}, "workload.rate_per_s = 1e-20: must be a finite number >= 1e-6 and"),
    ({"arrivals": "gamma", "cv": 1e200}, "workload.cv = 1e+200: must be a finite number >= 0.001"),
    (
        {"arrivals": "gamma", "cv": 101},
        "workload.cv = 101: must be a finite number >= 0.001 and <=",
    ),
    (
        {"arrivals": "bursts", "on_s": 1e-9, "off_s": 1e-9},
        "workload.on_s = 1e-09: must be a finite number >= 0.001",
    ),
    (
        {"arrivals": "bursts", "on_s": 1e-3, "off_s": 1e-3, "rate_per_s": 0.01},
        "must have at most 1000 phases between two arrivals, not 50000",
    ),
    ({"deadline_s": {"short": 10**400}}, "workload.deadline_s.short = a number of more than 30"),
    ({"prompt_tokens": 10**10}, "must have 0 <= lowest <= highest <= 1,000,000,000"),
    ({"mix": {"short": 0.5}}, "shares must sum to 1, not 0.5"),
    ({"mix": {"short": 1.5, "long": -0.5}}, "workload.mix.long = -0.5: must be a finite number"),
    ({"mix": {"tiny": 1.0}}, "workload.mix.tiny: is no key of this table (there are short"),
    ({"mix": 5}, "workload.mix = 5: must be a table"),
    ({"tokens": "normal"}, "workload.tokens = 'normal': must be one of loguniform"),
    ({"deadline_s": {"short": 0}}, "workload.deadline_s.short = 0: must be a finite number > 0"),
    ({"deadline_s": {"short": True}}, "workload.deadline_s.short = True: must be a finite"),
    ({"information": "all"}, "workload.information = 'all': must be one of coarse, none"),
    ({"information": "predicted"}, "must have a file of recorded predictions as predictions"),
    ({"information": "recorded"}, "must have a decision log as trace"),
    ({"noise": -0.1}, "workload.noise = -0.1: must be a finite number >= 0"),
    ({"noise": 1.0}, "workload.noise = 1.0: must be a finite number >= 0 and < 1"),
    ({"prompt_tokens": [5]}, "workload.prompt_tokens = [5]: must be a whole number or"),
    ({"prompt_tokens": [5, 1]}, "must have 0 <= lowest <= highest"),
    ({"first_token_s": 3.0}, "workload.first_token_s = 3.0: only with stream = true"),
    ({"refusal_s": -0.1}, "workload.refusal_s = -0.1: must be a finite number >= 0"),
    ({"stream": "yes"}, "workload.stream = 'yes': must be true or false"),
    ({"stream": 1.5}, "workload.stream = 1.5: must be true or false, or"),
    ({"prompt_tokens": {"median": 0}}, "workload.prompt_tokens.median = 0: must be a finite"),
    ({"prompt_tokens": {"mean": 5}}, "workload.prompt_tokens.mean = 5: is no key of"),
    ({"trace": 5}, "workload.trace = 5: must be the path of a file"),
    ({"trace": "nowhere.csv"}, "workload.trace = 'nowhere.csv': there is no such file"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_scenario({**tables(), **change})

    assert message in str(refused.value)


@pytest.mark.parametrize(("change", "message"), REFUSED_WORKLOADS)
def test_a_workload_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    given = {k: v for k, v in {**tables()["workload"], **change}.items() if v is not None}

    with pytest.raises(ConfigError) as refused:
        read_scenario({**tables(), "workload": given})

    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ({}, "providers = {}: must be tables"),
        ({"a": {"model": "slots", "slots": 0}}, "providers.a.slots = 0: must be a whole number"),
        ({"a": 5}, "providers.a = 5: must be a table"),
    ],
)
def test_upstreams_that_cannot_be_are_refused(providers: Any, message: str) -> None:
    document = tables()
    del document["provider"]

    with pytest.raises(ConfigError) as refused:
        read_scenario({**document, "providers": providers})

    assert message in str(refused.value)


def test_all_mistakes_of_a_scenario_are_told_at_once_with_the_file(tmp_path: Path) -> None:
    text = """
seeds = [1, -1]
[provider]
model = "slots"
slots = 0
ttft_s = "soon"
[workload]
rate_per_s = 0
mix = { short = -1, tiny = 0.5 }
stream = "yes"
[policies.a]
queue_limit = 0
capacity = { kind = "fixed", windw = 8 }
[policies.b]
overload = { kind = "cost_ladder", returns = -1 }
"""
    with pytest.raises(ConfigError) as refused:
        load_scenario(scenario_file(tmp_path, text))

    head, *lines = str(refused.value).splitlines()
    assert head == f"{tmp_path / 'scenario.toml'}: 10 problems; nothing was started."
    assert [re.split(" = |: ", line.strip())[0] for line in lines] == [
        "seeds[1]",
        "workload.rate_per_s",
        "workload.mix.short",
        "workload.mix.tiny",
        "workload.stream",
        "policies.a.capacity.windw",
        "policies.a.queue_limit",
        "policies.b.overload.returns",
        "provider.ttft_s",
        "provider.slots",
    ]


@pytest.mark.parametrize("key", ["provider", "workload"])
def test_a_missing_table_is_called_missing(key: str) -> None:
    document = {k: v for k, v in tables().items() if k != key}

    with pytest.raises(ConfigError, match=f"  {key}: is missing: it must be a table"):
        read_scenario(document)


def test_an_empty_table_of_policies_is_one_left_out() -> None:
    assert read_scenario({**tables(), "policies": {}}) == read_scenario(tables())


def test_a_byte_order_mark_before_the_scenario_changes_nothing(tmp_path: Path) -> None:
    plain = load_scenario(scenario_file(tmp_path))

    assert load_scenario(scenario_file(tmp_path, "\ufeff" + ISSUE)) == plain


def test_a_number_too_long_for_python_is_no_valid_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not TOML: "):
        load_scenario(scenario_file(tmp_path, f"seeds = [{'9' * 5000}]\n"))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenario(tmp_path / "nowhere.toml")


def test_a_file_that_is_no_toml_is_refused_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not TOML: .*line 2"):
        load_scenario(scenario_file(tmp_path, "seeds = [1]\n[provider\n[workload]\n"))
