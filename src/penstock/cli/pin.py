"""`penstock pin`: parse, ask, print."""

import click

from penstock.cli.operator import admin_options, ask, message_of
from penstock.cli.printable import say
from penstock.cli.span import TimeSpan


@click.command()
@click.argument("name")
@click.option("--window", type=float, help="Requests that may be in flight at upstream NAME.")
@click.option("--pause", is_flag=True, help="Send nothing to upstream NAME; what comes waits.")
@click.option("--weight", type=float, help="Share of class NAME under contention.")
@click.option(
    "--for", "for_s", type=TimeSpan(), required=True, help="When it ends: 90s, 30m, 2h, 1d."
)
@admin_options
def command(
    name: str,
    window: float | None,
    pause: bool,
    weight: float | None,
    for_s: float,
    admin: str,
    token_env: str,
) -> None:
    """Hold a window, a pause or a class's weight for a while, whatever is learnt or configured.

    It ends by itself, or by `penstock lift NAME`; a reload leaves it, a restart ends it. Needs the
    admin token.
    """
    wanted = {"window": window, "pause": 0.0 if pause else None, "weight": weight}
    chosen = [(what, value) for what, value in wanted.items() if value is not None]
    if len(chosen) != 1:
        raise click.UsageError("give one of --window, --pause and --weight")
    [(what, value)] = chosen
    body = {"what": what, "name": name, "value": value, "for_s": for_s}
    status, content = ask(admin, token_env, "/admin/pins", method="POST", body=body)
    if status != 200:
        raise click.ClickException(message_of(content))
    held = "is paused" if what == "pause" else f"has {what} {value:g}"
    say(f"{name} {held} for {for_s:g} s.")
