"""`penstock mock`: parse, wire, print."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from penstock.errors import ConfigError
from penstock.runtime.uninterrupted import run_loop
from penstock.schema.reading import read_toml


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _why(error: OSError) -> str:
    """Return the system's word alone: asyncio puts the address into an error's text once more."""
    known = error.errno is not None and error.errno > 0  # below: the resolver's, not errno's
    return os.strerror(error.errno) if known and error.errno else error.strerror or str(error)


def _provider_table(config: Path | None, model: str | None, pairs: tuple[str, ...]) -> Any:
    table: dict[str, Any] = {"model": "slots"}
    if config is not None:
        document = read_toml(config)
        given = document.get("provider", document)
        if not isinstance(given, Mapping):
            raise ConfigError(f"provider = {given!r}: must be a table")
        table = dict(given)
    if model is not None:
        table["model"] = model
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(
                f"{pair!r} must be NAME=VALUE, such as slots=4", param_hint="--set"
            )
        table[name.strip()] = _value(text.strip())
    return table


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="Listen here; 0 takes a free port.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the [provider] table of this TOML file, as in a scenario of `penstock simulate`.",
)
@click.option("--model", help="Be this provider: slots, shared, thrash, linear, serial, ...")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of the provider, such as slots=4; may be given several times.",
)
@click.option("--seed", default=0, show_default=True, help="Draw texts, lengths and jitter by it.")
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Give the replies of this TOML file to the calls that they fit.",
)
@click.option("--api-key", "api_keys", multiple=True, help="Refuse callers without this key.")
@click.option("--serve-model", "models", multiple=True, help="Answer 404 for any other model name.")
def command(
    host: str,
    port: int,
    config: Path | None,
    model: str | None,
    pairs: tuple[str, ...],
    seed: int,
    script: Path | None,
    api_keys: tuple[str, ...],
    models: tuple[str, ...],
) -> None:
    """Run a black-box LLM provider that speaks the OpenAI and Anthropic APIs.

    Its capacity is hidden, as a real one's is. Replies are as long as the header
    `x-mock-output-tokens` says, else a length drawn from the request itself; `x-mock-content` and
    `x-mock-usage` set text and usage. The header `x-mock-fault` makes it misbehave: reset,
    reset_at_once, stall, truncate, bad_sse, not_json, slow_first_token:SECONDS, status:CODE,
    quota. What it has seen: GET /mock/stats.
    """
    from penstock.sim.mock.app import MockApp
    from penstock.sim.mock.script import MockSettings, read_script
    from penstock.sim.mock.server import serve_until_signalled

    table = _provider_table(config, model, pairs)
    replies = () if script is None else read_script(script)
    settings = MockSettings(table, seed=seed, api_keys=api_keys, models=models, script=replies)

    def started(bound: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"penstock mock: {table['model']} listening on http://{shown}:{bound}")

    try:
        run_loop(lambda: serve_until_signalled(MockApp(settings), host, port, started=started))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host}:{port}: {_why(error)} (does another program listen there? "
            "--port 0 takes a free port)"
        ) from error
