"""`penstock reload`: ask, print."""

import json
import sys

import click

from penstock.cli.operator import a_sidecars_answer, admin_options, ask, tell_taken, unexpected
from penstock.cli.printable import printable, say


@click.command()
@admin_options
def command(admin: str, token_env: str) -> None:
    """Have the running sidecar read its configuration again.

    The whole file is checked first. It is taken as a whole, between two decisions, or not at all,
    and the answer says what has changed or why nothing has. Calls under way are not touched;
    windows, fits, accounts and the predictor stay. Keys in files and commands are read again.
    Needs the admin token; a SIGHUP does the same without one. Ends with status 1 if refused.
    """
    status, content = ask(admin, token_env, "/admin/reload", method="POST")
    if status not in (200, 409):
        raise unexpected(admin, status, content)
    with a_sidecars_answer(admin):
        answer = json.loads(content)
        changed, generation = list(map(printable, answer["changed"])), int(answer["generation"])
        if answer["refused"]:
            for sentence in changed:
                say(f"  {sentence}")
            lines = "\n".join(map(printable, answer["refused"].splitlines()))
            say(f"Refused; generation {generation} goes on. {lines}", err=True)
            sys.exit(1)
    tell_taken(changed, generation)
