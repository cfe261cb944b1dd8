"""Tables become providers, or are refused with the key, the value and the rule."""

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.sim.providers.base import Job
from penstock.sim.providers.registry import MODELS, build_provider

SLOTS = {"model": "slots"}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_defaults(model: str) -> None:
    table: dict[str, Any] = {"model": model}
    if model in ("rate_limited", "faulty"):
        table["inner"] = SLOTS
    if model == "rate_limited":
        table["rpm"] = 60
    if model == "faulty":
        table["windows"] = [{"kind": "status"}]

    assert build_provider(table, seed=0).load().active == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "provider = []: must be a table"),
        ({}, "provider.model: is missing: it must be one of linear, slots"),
        ({"model": "slotz"}, "provider.model = 'slotz': must be one of"),
        ({**SLOTS, "slotz": 1}, "provider.slotz = 1: is no key of this table"),
        ({**SLOTS, "slotz": 1}, "did you mean slots?"),
        (
            {**SLOTS, "zzz": 1},
            "jitter, tokens_per_s, ttft_s, slots, beta, model",
        ),
        ({**SLOTS, "slots": 0}, "provider.slots = 0: must be a whole number >= 1"),
        ({**SLOTS, "slots": 1.5}, "provider.slots = 1.5: must be a whole number >= 1"),
        ({**SLOTS, "slots": True}, "provider.slots = True: must be a whole number >= 1"),
        ({**SLOTS, "slots": "8"}, "provider.slots = '8': must be a whole number >= 1"),
        (
            {**SLOTS, "tokens_per_s": 0},
            "provider.tokens_per_s = 0: must be a finite number >= 0.001",
        ),
        ({**SLOTS, "ttft_s": -1}, "provider.ttft_s = -1: must be a finite number >= 0"),
        ({**SLOTS, "ttft_s": float("nan")}, "provider.ttft_s = nan: must be a finite number"),
        ({**SLOTS, "changes": 5}, "provider.changes = 5: must be a list of tables with at_s"),
        ({**SLOTS, "changes": [{"slots": 4}]}, "provider.changes[0].at_s: is missing: it must"),
        ({**SLOTS, "changes": [{"at_s": 1}]}, "must name at least one parameter"),
        ({**SLOTS, "changes": ["x"]}, "provider.changes[0] = 'x': must be a table"),
        (
            {**SLOTS, "changes": [{"at_s": 2, "slots": 4}, {"at_s": 1, "slots": 2}]},
            "provider.changes[1].at_s = 1: must be >= 0 and later than the one before",
        ),
        (
            {**SLOTS, "changes": [{"at_s": 1, "slots": 0}]},
            "provider.changes[0].slots = 0: must be a whole number >= 1",
        ),
        ({**SLOTS, "limits": 5}, "provider.limits = 5: must be a table"),
        ({**SLOTS, "limits": {"rpm": 0}}, "provider.limits.rpm = 0: must be a finite number >="),
        ({**SLOTS, "faults": []}, "provider.faults = []: must be a list of at least one table"),
        ({**SLOTS, "faults": [{"kind": "x"}]}, "provider.faults[0].kind = 'x': must be one of"),
        ({"model": "rate_limited"}, "provider.inner: missing"),
        (
            {"model": "rate_limited", "inner": {"model": "slots", "slots": 0}},
            "provider.inner.slots = 0",
        ),
        (
            {"model": "rate_limited", "inner": SLOTS, "dialect": "x"},
            "provider.dialect = 'x': must be one of openai, azure, anthropic, groq, plain",
        ),
        ({"model": "faulty", "inner": SLOTS}, "provider.windows: is missing: it must be a list"),
        ({"model": "faulty", "inner": SLOTS, "windows": [{}]}, "windows[0].kind: is missing"),
        (
            {"model": "faulty", "inner": SLOTS, "windows": [{"kind": "status", "share": 2}]},
            "provider.windows[0].share = 2: must be a finite number >= 0 and <= 1",
        ),
        (
            {"model": "faulty", "inner": SLOTS, "windows": [{"kind": "status", "status": 600}]},
            "provider.windows[0].status = 600: must be a whole number >= 400 and <= 599",
        ),
        (
            {"model": "faulty", "inner": SLOTS, "windows": [{"kind": "stall", "until_s": 0}]},
            "provider.windows[0].until_s = 0.0: must be later than from_s",
        ),
        (
            {"model": "faulty", "inner": SLOTS, "windows": [{"kind": "status"}], "slots": 1},
            "provider.slots: is no key of this table",
        ),
        ({**SLOTS, "slotz": 1}, "provider.slotz = 1: is no key of this table (did you mean"),
        ({**SLOTS, "beta": 1e308}, "provider.beta = 1e+308: must be a finite number >= 0 and <= 1"),
        (
            {**SLOTS, "tokens_per_s": 1e-308},
            "tokens_per_s = 1e-308: must be a finite number >= 0.0",
        ),
        ({"model": "thrash", "theta": 500}, "provider.theta = 500: must be a finite number >= 0"),
        ({"model": "linear", "jitter": 1000}, "provider.jitter = 1000: must be a finite number >="),
        (
            {**SLOTS, "limits": {}},
            "provider.limits: states no limit: must have at least one of rpm",
        ),
        (
            {"model": "rate_limited", "inner": SLOTS},
            "provider: states no limit: must have at least",
        ),
        (
            {**SLOTS, "faults": [{"kind": "status", "delay_s": 3}]},
            "provider.faults[0].delay_s = 3.0: does nothing: kind = 'status' takes status, retry_",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_key_value_and_rule(table: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build_provider(table, seed=0)

    assert message in str(refused.value)


def test_a_limit_may_come_later() -> None:
    limits = {"changes": [{"at_s": 5, "rpm": 60}], "burst_s": 1.0}
    provider = build_provider({**SLOTS, "limits": limits}, seed=0)

    answers = [provider.submit(Job(n, 1), now=at) for n, at in enumerate((0.0, 0.0, 5.0, 5.0))]

    assert [None if a is None else a.status for a in answers] == [None, None, None, 429]


def test_any_provider_may_have_limits_and_before_them_faults() -> None:
    provider = build_provider(
        {
            **SLOTS,
            "limits": {"rpm": 60, "burst_s": 1.0},
            "faults": [{"kind": "status", "status": 503, "until_s": 5}],
        },
        seed=0,
    )

    answers = [provider.submit(Job(n, 1), now=at) for n, at in enumerate((0.0, 5.0, 5.0))]

    assert [None if a is None else a.status for a in answers] == [503, None, 429]
