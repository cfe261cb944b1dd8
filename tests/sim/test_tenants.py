"""A tenant with a few calls beside a tenant with a thousand, in virtual time."""

import runpy
from pathlib import Path

import pytest

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "bench_tenants.py"))


@pytest.mark.parametrize("order", ["last", "among"])
def test_a_few_calls_wait_for_what_flies_and_their_turns_not_for_the_thousand(order: str) -> None:
    alone_s, beside_s, least_s, without_turns_s = BENCH["row"]("short", order, range(5))

    assert beside_s <= 1.4 * alone_s  # the slots are full when they come, and nothing is taken back
    assert beside_s <= 1.1 * least_s
    assert without_turns_s > 20 * beside_s
