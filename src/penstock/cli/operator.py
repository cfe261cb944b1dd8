"""Asks a running sidecar's admin listener; what the operators' commands share."""

import http.client
import json
import os
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

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
