"""Opens what a configuration names, for `penstock serve --check`; starts and changes nothing."""

import errno
import os
import socket
from importlib.util import find_spec
from pathlib import Path

from penstock.errors import ConfigError
from penstock.private_file import likely_cause, try_file
from penstock.proxy.config import Loaded
from penstock.proxy.config.models import Otel, PredictorTable
from penstock.proxy.observe.live import pipeline_of
from penstock.proxy.predicting import start_of, told
from penstock.schema.problem import Problem, refusal


def preflight(loaded: Loaded, *, where: str) -> None:
    """Try what a start would do with files and addresses.

    Stricter than a start, which serves without a prior or a state that is there but cannot be
    used, and says so in its log. A port that is taken is no mistake: the sidecar that runs now
    may have it.

    Raises:
        ConfigError: something would fail; the text names every problem.

    """
    config = loaded.config
    problems = [
        *_written("log.decisions_path", config.log.decisions_path),
        *_predictor(config.predictor),
        *_otel(config.otel),
        *_address("server", config.server.host, config.server.port),
    ]
    if config.admin.enabled:
        problems += _address("admin", config.admin.host, config.admin.port)
    if problems:
        raise refusal(where, problems)


def _written(key: str, name: str | None) -> list[Problem]:
    if name is None:
        return []
    try:
        try_file(Path(name))
    except OSError as error:
        rule = f"cannot be written: {error.strerror or error}"
        return [Problem(key, repr(name), rule, likely_cause(error))]
    return []


def _predictor(table: PredictorTable) -> list[Problem]:
    if table.kind != "online":
        return []
    try:
        import numpy  # noqa: F401 - all that the predictor needs
    except ModuleNotFoundError:
        return [
            Problem("predictor.kind", repr(table.kind), "needs the package numpy",
                    "it comes with an extra: pip install 'penstock[predict]'")
        ]  # fmt: skip
    if table.count_prompts and find_spec("bpe_openai") is None:
        return [
            Problem("predictor.count_prompts", "True", "needs the package bpe-openai",
                    "it comes with an extra: pip install 'penstock[tokenizer]'")
        ]  # fmt: skip
    return [*_read(table), *_written("predictor.state_path", table.state_path)]


def _otel(table: Otel) -> list[Problem]:
    try:
        pipeline = pipeline_of(table)
    except ConfigError as error:
        return [Problem("otel.enabled", repr(table.enabled), f"cannot be: {error}")]
    if pipeline is not None:
        pipeline.close()
    return []


def _read(table: PredictorTable) -> list[Problem]:
    try:
        start = start_of(table.prior)
    except Exception as error:  # noqa: BLE001 - damage can look like anything
        rule = f"cannot be used: {told(error)}"
        return [Problem("predictor.prior", repr(table.prior), rule)]
    if table.state_path is None or not Path(table.state_path).is_file():
        return []
    try:
        start.restored(Path(table.state_path))
    except Exception as error:  # noqa: BLE001
        rule = f"cannot be used: {told(error)}"
        return [Problem("predictor.state_path", repr(table.state_path), rule)]
    return []


def _address(table: str, host: str, port: int) -> list[Problem]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        return [] if taken else [unheld(table, host, port, error)]
    return []


def unheld(table: str, host: str, port: int, error: OSError) -> Problem:
    """Return why a table's address cannot be listened on, by the key that is to be changed."""
    # An own text where there is one: asyncio's and the socket module's repeat the address.
    known = error.errno in errno.errorcode
    said = os.strerror(error.errno or 0) if known else error.strerror or str(error)
    rule = f"cannot listen on {host}:{port}: {said}"
    if error.errno == errno.EADDRINUSE:
        return Problem(f"{table}.port", str(port), rule, "does another penstock run already?")
    if error.errno == errno.EACCES:
        return Problem(f"{table}.port", str(port), rule, "ports below 1024 are root's")
    return Problem(f"{table}.host", repr(host), rule, "is that an address of this machine?")
