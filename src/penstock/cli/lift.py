"""`penstock lift`: parse, ask, print."""

import json
import urllib.parse

import click

from penstock.cli.operator import admin_options, ask, message_of


@click.command()
@click.argument("upstream")
@admin_options
def command(upstream: str, admin: str, token_env: str) -> None:
    """End every pause of UPSTREAM now: after refusals, faults or a spent quota.

    Requests go there at once; the next bad news opens its circuit again. Needs the admin token.
    """
    path = f"/admin/upstreams/{urllib.parse.quote(upstream, safe='')}/lift"
    status, content = ask(admin, token_env, path, method="POST")
    if status != 200:
        raise click.ClickException(message_of(content))
    causes = ", ".join(pause["cause"] for pause in json.loads(content)["lifted"])
    click.echo(f"{upstream}: lifted {causes}." if causes else f"{upstream} was not paused.")
