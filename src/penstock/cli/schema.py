"""`penstock schema`: the JSON Schema of a file, for editors."""

import importlib
import json

import click

FILES = {
    "config": ("penstock.proxy.config.models", "Config"),
    "scenario": ("penstock.sim.scenario", "ScenarioFile"),
}
"""Where the files that people write are declared."""


@click.command()
@click.argument("file", type=click.Choice(list(FILES)), default="config")
def command(file: str) -> None:
    """Print the JSON Schema of penstock.toml or of a scenario, for editors and checks of your own.

    An editor that knows TOML schemas completes and explains keys: save the schema beside the
    file as penstock.schema.json, and let the file's first line be
    `#:schema penstock.schema.json`.
    """
    from penstock.schema.json_schema import document_of

    module, name = FILES[file]
    kind = getattr(importlib.import_module(module), name)
    click.echo(json.dumps(document_of(kind), indent=2))
