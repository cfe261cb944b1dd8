"""Configuration names find their policies; what is wrong is said with key, value and rule."""

import pytest

from penstock.core.settings import PolicySpec, Settings, Stack
from penstock.errors import ConfigError
from penstock.policies.registry import POLICIES, build_scheduler, make, options_of
from tests.core.story import BOTH, scheduler


@pytest.mark.parametrize(
    ("layer", "kind"), [(layer, kind) for layer, kinds in POLICIES.items() for kind in kinds]
)
def test_every_policy_can_be_built_from_its_name_alone(layer: str, kind: str) -> None:
    stack = Stack(**{layer: PolicySpec(kind)})

    assert build_scheduler(Settings(BOTH, stack=stack)).snapshot().waiting == 0


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"ordering.kind='lifo' is not known: choose one of \['e"):
        scheduler(ordering=PolicySpec("lifo"))


def test_an_unknown_option_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"allocation.quantum=3 is not an option of 'drr': it has \['quantum_t"
    ):
        scheduler(allocation=PolicySpec("drr", {"quantum": 3}))
    with pytest.raises(ConfigError, match="it has none"):
        scheduler(ordering=PolicySpec("fifo", {"x": 1}))


def test_a_value_of_the_wrong_kind_is_refused_before_the_first_request() -> None:
    with pytest.raises(ConfigError, match="ordering 'feasible_set': "):
        scheduler(ordering=PolicySpec("feasible_set", {"patience": "long"}))


def test_options_come_with_their_defaults() -> None:
    options = options_of("ordering", "feasible_set")

    assert set(options) == {"price", "patience"}
    assert make("ordering", PolicySpec("feasible_set", options)) is not None  # type: ignore[arg-type]


IMPOSSIBLE: list[tuple[str, str, dict[str, object], str]] = [
    ("overload", "cost_ladder", {"defer_at": 3}, "defer_at=3: must be a table of severities"),
    ("overload", "cost_ladder", {"defer_at": {"tiny": 1}}, "defer_at.tiny=1: no such rung: must"),
    ("overload", "cost_ladder", {"defer_at": {"long": -1}}, "defer_at.long=-1: must be a finite"),
    ("overload", "uniform_mild", {"shed_at": {"long": float("nan")}}, "shed_at.long=nan: must be"),
    ("overload", "uniform_harsh", {"returns": -1}, "returns=-1: must be a whole number >= 0"),
    ("overload", "reverse_ladder", {"returns": 1.5}, "returns=1.5: must be a whole number >= 0"),
    ("overload", "cost_ladder", {"delay_share": 0}, "delay_share=0: must be a finite number > 0"),
    ("overload", "cost_ladder", {"delay_share": 5}, "delay_share=5: must be a finite number > 0"),
    ("capacity", "fixed", {"window": 1.5}, "window=1.5: must be a whole number >= 1"),
    ("capacity", "fixed", {"window": True}, "window=True: must be a whole number >= 1"),
    ("capacity", "fixed", {"window": float("inf")}, "`unlimited` has no window"),
    ("capacity", "fixed", {"window": "8"}, "window='8': must be a whole number >= 1"),
    ("capacity", "posterior", {"start": 2.5}, "start=2.5: must be a whole number >= 1"),
    ("capacity", "gradient2", {"memory": 0}, "memory=0: must be a finite number >= 1"),
    ("capacity", "gradient2", {"queue": -1}, "queue=-1: must be a finite number >= 0"),
    ("capacity", "gradient2", {"smoothing": 0}, "smoothing=0: must be a finite number > 0 and"),
    ("capacity", "aimd", {"backoff": 1}, "backoff=1: must be a finite number > 0 and < 1"),
    ("capacity", "aimd", {"timeout_s": "5"}, "timeout_s='5': must be a number > 0"),
    ("capacity", "vegas", {"initial": 0}, "initial=0: must be a finite number >= 1"),
    ("capacity", "vegas", {"largest": 3}, "largest=3: must be a number >= 20, for it cannot be"),
    (
        "ordering",
        "feasible_set",
        {"patience": 2.5},
        "patience=2.5: must be a whole number >= 2, as",
    ),
    ("ordering", "feasible_set", {"price": "a"}, "price='a': must be a finite number >= 0"),
    ("allocation", "drr", {"quantum_tokens": "a"}, "or no class gets a turn"),
    (
        "allocation",
        "adaptive_drr",
        {"room_share": "a"},
        "room_share='a': must be a finite number >= 0",
    ),
    ("allocation", "quota_tiered", {"quotas": 5}, "quotas=5: must be a table of shares by class"),
]


@pytest.mark.parametrize(("layer", "kind", "options", "message"), IMPOSSIBLE)
def test_an_impossible_option_is_refused_with_value_and_rule(
    layer: str, kind: str, options: dict[str, object], message: str
) -> None:
    spec = PolicySpec(kind, options)  # type: ignore[arg-type]

    with pytest.raises(ConfigError) as refused:
        build_scheduler(Settings(BOTH, stack=Stack(**{layer: spec})))

    assert f"{layer} {kind!r}: " in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("layer", "kind", "options"),
    [
        ("capacity", "fixed", {"window": 8.0, "window_tokens": float("inf")}),
        ("capacity", "vegas", {"largest": float("inf")}),
        ("overload", "cost_ladder", {"defer_at": {}, "shed_at": {"xlong": 2.0}, "returns": 0}),
    ],
)
def test_an_option_at_the_edge_of_its_rule_is_taken(
    layer: str, kind: str, options: dict[str, object]
) -> None:
    assert make(layer, PolicySpec(kind, options)) is not None  # type: ignore[arg-type]
