"""The operators' commands, each of which asks a running sidecar's admin listener, and prints."""

import http.client
import json
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from penstock.cli.options import TimeSpan, refusal
from penstock.cli.printable import printable, say

DEFAULT_ADMIN = "http://127.0.0.1:8788"
TOKEN_VARIABLE = "PENSTOCK_ADMIN_TOKEN"
TIMEOUT_S = 60.0

_C = TypeVar("_C", bound=Callable[..., Any])


def admin_options(command: _C) -> _C:
    """Add the options that say where the admin listener is and what holds its token."""
    command = click.option(
        "--token-env",
        default=TOKEN_VARIABLE,
        show_default=True,
        help="Environment variable that holds the admin token (admin.token_env).",
    )(command)
    return click.option(
        "--admin", default=DEFAULT_ADMIN, show_default=True, help="The sidecar's admin listener."
    )(command)


def ask(
    admin: str, token_env: str, path: str, *, method: str = "GET", body: object = None
) -> tuple[int, bytes]:
    """Return the status and the body of the answer; redirects are not followed.

    Raises:
        click.BadParameter: that is no address.
        click.ClickException: nobody answers there, or only with a token, or with another one.

    """
    url = urllib.parse.urlsplit(admin)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise click.BadParameter(
            f"{admin!r} must be an http:// or https:// address", param_hint="--admin"
        )
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    headers = {"content-type": "application/json"}
    token = os.environ.get(token_env, "").strip()
    if token:
        headers["authorization"] = f"Bearer {token}"
    try:
        connection = kind(url.hostname, url.port, timeout=TIMEOUT_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, url.path.rstrip("/") + path, data, headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise click.ClickException(
            f"no sidecar's admin listener at {admin} ({type(error).__name__}): "
            "is it running, and on that port?"
        ) from None
    if status == 401:
        held = "holds another one" if token else "is not set"
        raise click.ClickException(
            f"{admin} asks for the admin token, which is read from {token_env}, and that {held}: "
            "which token does admin.token_env or admin.token_file of its configuration name?"
        )
    if status == 403:
        raise unexpected(admin, status, content)
    return status, content


@contextmanager
def a_sidecars_answer(admin: str) -> Iterator[None]:
    """Read what a sidecar answers: of another server it may be anything.

    Raises:
        click.ClickException: it lacks what a sidecar's answer has.

    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError):
        raise click.ClickException(
            f"{admin} answers with something else than a sidecar of this version: "
            "is that a sidecar's admin listener?"
        ) from None


def unexpected(admin: str, status: int, content: bytes) -> click.ClickException:
    """Return what to raise for an answer that the command can do nothing with."""
    return click.ClickException(
        f"{admin} answered {status}: {message_of(content)}"
        + (" (is that a sidecar's admin listener?)" if status == 404 else "")
    )


def message_of(content: bytes) -> str:
    """Return an answer's text as a terminal may have it."""
    return "\n".join(map(printable, content.decode(errors="replace").strip().splitlines()))


def tell_taken(changed: Sequence[str], generation: int) -> None:
    """Print what a configuration that was taken has changed."""
    for sentence in changed or ("nothing has changed but what keys may hold",):
        say(f"  {sentence}")
    click.echo(f"Generation {generation} holds now.")


@click.command()
@click.option(
    "--admin", default=DEFAULT_ADMIN, show_default=True, help="The sidecar's admin listener."
)
@click.option(
    "--ready", is_flag=True, help="Ask whether it takes calls: while it drains it takes none."
)
def health(admin: str, ready: bool) -> None:
    """Ask a sidecar whether it is well: status 0 if it is, 1 if it is not or nobody answers.

    For an image without curl, and for whoever else waits for a sidecar. Needs no token.
    """
    status, content = ask(admin, TOKEN_VARIABLE, "/readyz" if ready else "/healthz")
    click.echo(message_of(content))
    sys.exit(0 if status == 200 else 1)


@click.command()
@admin_options
def reload(admin: str, token_env: str) -> None:
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
def promote(name: str, path: Path, admin: str, token_env: str) -> None:
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


@click.command()
@click.argument("name")
@click.option("--window", type=float, help="Requests that may be in flight at upstream NAME.")
@click.option("--pause", is_flag=True, help="Send nothing to upstream NAME; what comes waits.")
@click.option("--weight", type=float, help="Share of class NAME under contention.")
@click.option(
    "--for", "for_s", type=TimeSpan(), required=True, help="When it ends: 90s, 30m, 2h, 1d."
)
@admin_options
def pin(
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


@click.command()
@click.argument("name")
@admin_options
def lift(name: str, admin: str, token_env: str) -> None:
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
