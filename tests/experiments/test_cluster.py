"""Needs Ray (requirements/ray.txt); see conftest.py."""

import pytest

from penstock.errors import ConfigError
from penstock.experiments.pool import Here, RayCluster
from tests.experiments.jobs import job

JOBS = [job(seed) for seed in range(1, 20)]


@pytest.mark.slow
def test_a_local_cluster_finds_what_this_process_finds() -> None:
    here = [(one.seed, found) for batch in Here().run(JOBS) for one, found in batch]
    cluster = RayCluster("local")
    try:
        there = [(one.seed, found) for batch in cluster.run(JOBS) for one, found in batch]
    finally:
        cluster.close()

    assert sorted(there, key=lambda pair: pair[0]) == here


@pytest.mark.slow
def test_an_address_where_nobody_answers_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"--ray 127\.0\.0\.1:1: no cluster answers there"):
        RayCluster("127.0.0.1:1")
