from penstock.experiments.measure import SimulationJob, overlay
from tests.experiments.specimens import job


def test_the_same_job_has_the_same_key_however_its_tables_were_written() -> None:
    one = SimulationJob({"provider": {"model": "slots", "slots": 4}}, {}, 1)
    other = SimulationJob({"provider": {"slots": 4, "model": "slots"}}, {}, 1)

    assert one.key("v1") == other.key("v1")


def test_another_seed_policy_or_version_of_the_code_is_another_run() -> None:
    keys = {
        job(seed=1).key("v1"),
        job(seed=2).key("v1"),
        job(seed=1, ordering="edf").key("v1"),
        job(seed=1).key("v2"),
    }

    assert len(keys) == 4


def test_an_overlay_merges_tables_and_replaces_values() -> None:
    below = {"provider": {"model": "slots", "slots": 8}, "seed": 1}

    assert overlay(below, {"provider": {"slots": 4}}) == {
        "provider": {"model": "slots", "slots": 4},
        "seed": 1,
    }
    assert below["provider"] == {"model": "slots", "slots": 8}
