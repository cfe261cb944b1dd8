"""`penstock whatif`: parse, wire, print."""

import json
import sys
from pathlib import Path

import click

from penstock.cli.out_file import OutFile, is_dash, keep_apart, standard_output, write_text
from penstock.cli.twin_read import UNTRUSTED, in_words, progress, read_history
from penstock.cli.whatif_table import print_groups


@click.command()
@click.argument("log", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--policy",
    "policy_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with what is different: tables of penstock.toml ([scheduler], [[classes]], "
    "[[upstreams]]), each with the keys that change.",
)
@click.option("--run", help="This run of the log instead of its last one.")
@click.option("--price-in", default=0.0, help="USD per million input tokens, for the money shown.")
@click.option("--price-out", default=0.0, help="USD per million output tokens.")
@click.option(
    "--json",
    "json_file",
    type=OutFile(allow_dash=True),
    help="Write the figures to this file as JSON; - for standard output, without the table.",
)
def command(
    log: Path,
    policy_file: Path,
    run: str | None,
    price_in: float,
    price_out: float,
    json_file: Path | None,
) -> None:
    """Return what another configuration would have done with the traffic of LOG, a decision log.

    A model of the provider is fitted to the log and the log's requests run against it, under the
    configuration that held and under the other one. Each difference has a 95 % interval. Ends with
    status 3 if the model does not tell what really happened: then nothing here is to be trusted,
    and the reason is given.
    """
    from penstock.schema.toml import read_toml
    from penstock.twin.model import twin_of
    from penstock.twin.policy import read_policy
    from penstock.twin.whatif import plain, whatif

    keep_apart({"LOG": log, "--policy": policy_file, "--json": json_file})
    policy = read_policy(read_toml(policy_file), where=str(policy_file))
    history = read_history(log, run)
    policy.settings(history.settings)  # what it names must be there before minutes are spent
    price = (price_in / 1e6, price_out / 1e6)
    prices = {each.name: price for each in history.settings.upstreams}
    with progress() as step:
        twin = twin_of(history, on_step=step)
        step(f"running {len(history.calls):,} calls under both configurations")
        groups = whatif(history, twin, policy, prices=prices)
    if not is_dash(json_file):
        with standard_output():
            print_groups(groups)
            click.echo("\n".join(in_words(twin.check)))
    if json_file is not None:
        faults = list(twin.check.faults)
        report = {"trusted": twin.check.passed, "because": faults, "groups": plain(groups)}
        write_text(json_file, json.dumps(report, indent=2, allow_nan=False) + "\n")
    if not twin.check.passed:
        sys.exit(UNTRUSTED)
