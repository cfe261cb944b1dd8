"""`penstock batch`: parse, wire, print."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.options import OutFile, TimeSpan, keep_apart
from penstock.runtime.uninterrupted import run_loop

if TYPE_CHECKING:
    from penstock.batch.checkpoint import Checkpoint
    from penstock.batch.runner import Batch
    from penstock.integrations.program import Penstock
    from penstock.runtime.clock import Clock
    from penstock.wire.secret import Secret


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=OutFile(),
    help="Write the answers to this file.",
)
@click.option(
    "--errors",
    type=OutFile(),
    help="Write what failed to this file.  [default: OUT with .errors before its ending]",
)
@click.option(
    "--checkpoint",
    type=OutFile(),
    help="Keep what is done in this file.  [default: OUT.checkpoint]",
)
@click.option(
    "--base-url",
    envvar="OPENAI_BASE_URL",
    default="https://api.openai.com/v1",
    show_default=True,
    help="Send to this provider or sidecar.",
)
@click.option(
    "--api-key-env",
    default="OPENAI_API_KEY",
    show_default=True,
    help="Take the key from this environment variable.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=TimeSpan(),
    help="Let what is not done after this time expire, counted from the first start: 90s, 30m, 2h.",
)
@click.option(
    "--sidecar",
    is_flag=True,
    help="The base URL is a penstock sidecar: let it schedule, beside its other traffic.",
)
@click.option("--class", "traffic_class", help="Its class at the sidecar.  [default: batch]")
@click.option("--tenant", help="Whom it is for, at the sidecar.")
@click.option(
    "--max-in-flight",
    default=256,
    show_default=True,
    type=click.IntRange(min=1),
    help="Never have more calls in hand at once.",
)
@click.option("--price-in", default=0.0, help="USD per million input tokens, for the cost shown.")
@click.option("--price-out", default=0.0, help="USD per million output tokens, for the cost shown.")
@click.option(
    "--repair",
    is_flag=True,
    help="After a power cut: believe the answers on disk, not the checkpoint; keep every whole "
    "one and send the rest again.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(**options: Any) -> None:
    """Send SOURCE, a file in OpenAI's batch format, as fast as the provider allows.

    Run the same command again to go on after a stop, a crash or a kill: nothing is lost, and only
    calls that were in flight are repeated. Ctrl-C lets what flies finish; twice stops at once.
    """
    sys.exit(run_loop(lambda: _run(**options)))


async def _run(
    *,
    source: Path,
    out: Path,
    errors: Path | None,
    checkpoint: Path | None,
    base_url: str,
    api_key_env: str,
    deadline_s: float | None,
    sidecar: bool,
    traffic_class: str | None,
    tenant: str | None,
    max_in_flight: int,
    price_in: float,
    price_out: float,
    repair: bool,
    quiet: bool,
) -> int:
    """Run the batch; return the exit status."""
    from penstock.batch.checkpoint import Checkpoint
    from penstock.batch.lines import inspect
    from penstock.batch.repair import repair as rebuild
    from penstock.batch.runner import Batch
    from penstock.batch.sending import HttpSend

    errors = errors or out.with_suffix(f".errors{out.suffix}")
    checkpoint = checkpoint or out.with_name(f"{out.name}.checkpoint")
    keep_apart({"SOURCE": source, "--out": out, "--errors": errors, "--checkpoint": checkpoint})
    if not sidecar and (traffic_class or tenant):
        raise click.UsageError(
            "--class and --tenant are told to a sidecar: they need --sidecar; there is nobody else "
            "whom the lines could go before"
        )
    key = _key(api_key_env)
    inspection = inspect(source)
    penstock = None if sidecar else _penstock()
    send = HttpSend(
        base_url,
        key,
        penstock,
        traffic_class=(traffic_class or "batch") if sidecar else None,
        tenant=tenant,
    )
    if repair:
        rebuild(checkpoint, source, out, errors, inspection, now_unix_s=time.time())
    store = Checkpoint(checkpoint, out, errors, inspection, now_unix_s=time.time())
    loop = asyncio.get_running_loop()
    deadline_at = None
    if deadline_s is not None:
        deadline_at = loop.time() + store.started_unix_s + deadline_s - time.time()
    with store, _shown(store, quiet, price_in, price_out) as shown:
        batch = Batch(
            source,
            store,
            send,
            ahead=max_in_flight,
            deadline_at=deadline_at,
            on_result=shown,
            on_trouble=shown,
            on_stop=(lambda: None) if penstock is None else penstock.drain,
        )
        send.on_connection = batch.connected
        send.on_stranger = lambda: click.echo(
            "The base URL answers, but it is no penstock sidecar: nothing schedules these lines. "
            "Is it the sidecar's, or is --sidecar too much?",
            err=True,
        )
        _stop_on_signals(loop, batch.stop)
        try:
            await batch.run()
        finally:
            await send.close()
            if penstock is not None:
                penstock.close()
        keyless = "" if key else f"No key was sent, for {api_key_env} is not set. "
        return _report(store, out, errors, quiet, batch, keyless)


def _key(name: str) -> "Secret | None":
    """Return the key that an environment variable holds; None if it is not set, or empty."""
    from penstock.wire.secret import KeyProblem, Secret

    if not os.environ.get(name, "").strip():
        return None
    try:
        return Secret.of(os.environ[name])
    except KeyProblem as problem:
        raise click.BadParameter(f"{name!r} {problem}", param_hint="--api-key-env") from None


def _penstock(clock: "Clock | None" = None) -> "Penstock":
    from penstock.core.settings import PolicySpec, Stack
    from penstock.integrations.program import Penstock

    stack = Stack(overload=PolicySpec("always_admit"))
    return Penstock(default_class="batch", stack=stack, queue_ttl_s=0, clock=clock)


def _stop_on_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Drain at the first signal; the second has its usual effect."""

    def drain() -> None:
        stop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        click.echo(
            "Stopping: what flies may finish; once more to stop at once. "
            "Either way the same command goes on from there.",
            err=True,
        )

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, drain)


def _report(
    store: "Checkpoint", out: Path, errors: Path, quiet: bool, batch: "Batch", keyless: str
) -> int:
    """Print how the batch ended; return the exit status. `keyless` says that no key was sent."""
    totals = store.totals
    left = store.requests - totals.done
    if left and batch.halted:
        raise click.ClickException(
            f"stopped, because {batch.halted} {keyless}{left} of {store.requests} are left, none "
            "of them lost: run the same command to go on."
        )
    if left and left == batch.set_aside:
        raise click.ClickException(
            f"{left} of {store.requests} are left, for which the provider has given no verdict "
            f"(the last time: {batch.trouble}): run the same command to send them again."
        )
    if left:
        click.echo(f"{left} of {store.requests} are left: run the same command to go on.", err=True)
        return 130
    if not quiet:
        click.echo(f"{totals.succeeded} answers in {out}", err=True)
    if totals.failed:
        click.echo(f"{totals.failed} failures in {errors}", err=True)
        return 1
    return 0


@contextmanager
def _shown(
    store: "Checkpoint", quiet: bool, price_in: float, price_out: float
) -> "Iterator[Callable[..., None]]":
    """Show a progress bar with the time left and the cost; yield what each result calls.

    Trouble calls it too, with what it was and when it is tried again: a provider that cannot be
    reached looks like a slow one otherwise. New trouble is a line above the bar: beside it, 80
    columns leave no room for a reason.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    bar = Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=5)),
        BarColumn(),
        MofNCompleteColumn(
            table_column=Column(no_wrap=True, min_width=len(f"{store.requests}") * 2 + 1)
        ),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),  # words of the provider's
        console=Console(stderr=True),
        disable=quiet,
    )
    task = bar.add_task("batch", total=store.requests, note="")
    totals = store.totals

    told = ""

    def show(trouble: str = "", wait_s: float = 0.0) -> None:
        nonlocal told
        cost_usd = (totals.prompt_tokens * price_in + totals.output_tokens * price_out) / 1e6
        note = f"{totals.output_tokens:,} tokens"
        if price_in or price_out:
            note += f", ${cost_usd:,.2f}"
        if totals.failed:
            note += f", {totals.failed} failed"
        if trouble:
            note = f"next try in {wait_s:.0f} s"
        if not quiet and trouble not in ("", told):
            told = trouble
            bar.console.print(trouble, markup=False, highlight=False, soft_wrap=True)
        bar.update(task, completed=totals.done, note=note)

    show()
    with bar:
        yield show
