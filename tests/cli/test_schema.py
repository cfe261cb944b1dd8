"""`penstock schema` prints what editors check a file against."""

import json

from click.testing import CliRunner

from penstock.cli.group import group
from penstock.core.model import BUCKET_UPPER_TOKENS
from penstock.policies.registry import POLICIES


def test_the_schema_of_the_configuration_knows_every_table_and_every_policy() -> None:
    run = CliRunner().invoke(group, ["schema", "config"])

    assert run.exit_code == 0, run.output
    schema = json.loads(run.stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["required"] == ["upstreams"]
    scheduler = schema["$defs"]["SchedulerTable"]["properties"]
    for layer in POLICIES:
        assert scheduler[layer]["anyOf"][0]["enum"] == list(POLICIES[layer])
    fixed = next(
        table["properties"]
        for table in scheduler["capacity"]["anyOf"][1:]
        if table["properties"]["kind"]["const"] == "fixed"
    )
    assert (fixed["window"]["default"], fixed["window"]["minimum"]) == (8, 1)
    ladder = scheduler["overload"]["anyOf"][1]["properties"]["defer_at"]
    assert ladder["propertyNames"]["enum"] == [name for name, _ in BUCKET_UPPER_TOKENS]
    assert ladder["additionalProperties"]["maximum"] == 2.0
    # TOML has no null: what may be left out is not of two types.
    assert '"null"' not in run.stdout


def test_the_schema_of_a_scenario_knows_the_models_and_their_parameters() -> None:
    run = CliRunner().invoke(group, ["schema", "scenario"])

    assert run.exit_code == 0, run.output
    schema = json.loads(run.stdout)
    properties = schema["properties"]
    assert set(properties) == {"seeds", "provider", "providers", "workload", "classes", "policies"}
    slots = next(
        model["properties"]
        for model in properties["provider"]["anyOf"]
        if model["properties"]["model"]["const"] == "slots"
    )
    assert (slots["slots"]["default"], slots["slots"]["minimum"]) == (8, 1)
    workload = schema["$defs"]["WorkloadSpec"]["properties"]
    assert workload["arrivals"]["enum"][0] == "poisson"
