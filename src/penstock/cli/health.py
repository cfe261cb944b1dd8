"""`penstock health`: the check that a container engine runs in the container."""

import sys

import click

from penstock.cli.operator import DEFAULT_ADMIN, TOKEN_VARIABLE, ask, message_of


@click.command()
@click.option(
    "--admin", default=DEFAULT_ADMIN, show_default=True, help="The sidecar's admin listener."
)
@click.option(
    "--ready", is_flag=True, help="Ask whether it takes calls: while it drains it takes none."
)
def command(admin: str, ready: bool) -> None:
    """Ask a sidecar whether it is well: status 0 if it is, 1 if it is not or nobody answers.

    For an image without curl, and for whoever else waits for a sidecar. Needs no token.
    """
    status, content = ask(admin, TOKEN_VARIABLE, "/readyz" if ready else "/healthz")
    click.echo(message_of(content))
    sys.exit(0 if status == 200 else 1)
