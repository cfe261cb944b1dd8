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
