"""`penstock lift`: parse, ask, print."""

import json
import urllib.parse

import click

from penstock.cli.operator import a_sidecars_answer, admin_options, ask, message_of
from penstock.cli.printable import printable, say


@click.command()
@click.argument("name")
@admin_options
def command(name: str, admin: str, token_env: str) -> None:
    """End what keeps upstream NAME: pauses after refusals, faults or a spent quota, and pins.

    Requests go there at once; the next bad news opens its circuit again. NAME may be a class with
    a pin, too. Needs the admin token.
    """
    path = f"/admin/upstreams/{urllib.parse.quote(name, safe='')}/lift"
    status, content = ask(admin, token_env, path, method="POST")
    if status != 200:
        raise click.ClickException(message_of(content))
    with a_sidecars_answer(admin):
        answer = json.loads(content)
        ended = [pause["cause"] for pause in answer["lifted"]]
        ended += [f"pinned {pin['what']}" for pin in answer["pins"]]
        causes = printable(", ".join(ended))
    say(f"{name}: lifted {causes}." if ended else f"{name} was not paused.")
