"""`penstock promote`: parse, wire, print."""

import json
import sys
from pathlib import Path

import click

from penstock.cli.operator import admin_options, ask, message_of
from penstock.cli.out_file import refusal
from penstock.cli.printable import printable


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
    except click.ClickException:
        replace_file(path, before)
        raise
    answer = json.loads(content) if status in (200, 409) else {"refused": message_of(content)}
    if answer["refused"]:
        replace_file(path, before)
        click.echo(f"Refused, and {path} is as it was. {printable(answer['refused'])}", err=True)
        sys.exit(1)
    for sentence in answer["changed"]:
        click.echo(f"  {printable(sentence)}")
    click.echo(f"Generation {answer['generation']} holds now.")
