"""`penstock promote`: parse, wire, print."""

import json
import sys
from pathlib import Path

import click

from penstock.cli.operator import a_sidecars_answer, admin_options, ask, message_of, tell_taken
from penstock.cli.out_file import refusal
from penstock.cli.printable import printable, say


@click.command()
@click.argument("name")
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="penstock.toml",
    show_default=True,
    help="The configuration that the sidecar was started with.",
)
@admin_options
def command(name: str, path: Path, admin: str, token_env: str) -> None:
    """Let the shadow's policy NAME hold: write it into the configuration and have that read.

    The keys of shadow.policies.NAME are set in the file, which is written whole or not at all;
    comments and all else stay. Then the sidecar reads it, as by `penstock reload`. If it refuses,
    the file is as it was, and the command ends with status 1.
    """
    from penstock.proxy.promote import promoted, replace_file

    before = path.read_bytes()
    after = promoted(before.decode("utf-8-sig"), name, where=str(path)).encode()
    try:
        replace_file(path, after)
    except OSError as error:
        raise click.ClickException(refusal(path, error)) from None
    try:
        status, content = ask(admin, token_env, "/admin/reload", method="POST")
        with a_sidecars_answer(admin):
            if status not in (200, 409):
                refused, changed, generation = message_of(content), [], 0
            else:
                answer = json.loads(content)
                refused, generation = printable(answer["refused"]), int(answer["generation"])
                changed = [printable(sentence) for sentence in answer["changed"]]
    except click.ClickException:
        replace_file(path, before)
        raise
    if refused:
        replace_file(path, before)
        say(f"Refused, and {path} is as it was. {refused}", err=True)
        sys.exit(1)
    tell_taken(changed, generation)
