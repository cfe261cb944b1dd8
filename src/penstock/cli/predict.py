"""`penstock predict`: train, evaluate and report token estimates."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from penstock.cli.options import (
    OutFile,
    keep_apart,
    make_folder,
    records_of,
    takes_log,
    write_text,
)
from penstock.cli.printable import printable

if TYPE_CHECKING:
    from penstock.predict.evaluate import Settled
    from penstock.predict.online.predictor import OnlinePredictor
    from penstock.predict.prior.model import LogTokens
    from penstock.predict.train.datasets import RecordedReply


_SHOWN = (
    ("n", "n", "{:,}"),
    ("bucket_accuracy", "bucket", "{:.3f}"),
    ("pair_ranking", "ranking", "{:.3f}"),
    ("spearman", "spearman", "{:.3f}"),
    ("median_multiplicative_error", "error", "x{:.2f}"),
    ("p90_coverage", "p90 cover", "{:.3f}"),
)
_SECTIONS = ("stretches", "routes", "models", "sources")


def print_figures(report: dict[str, Any]) -> None:
    """Print a report's figures: over all rows, then by section, as far as it has them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", *(title for _, title, _ in _SHOWN), box=None)
    table.add_row("all", *_cells(report))
    for section in _SECTIONS:
        rows = report.get(section)
        if not rows:
            continue
        table.add_row(Text(section, "bold"))
        for name, row in rows.items():
            table.add_row(Text(printable(name) or "(none)"), *_cells(row))
    console = Console()
    console.print(table)
    if "latency_p50_us" in report:
        console.print(
            f"prediction p50 {report['latency_p50_us']:.0f} us, "
            f"state {report['state_bytes']:,} bytes"
        )


def _cells(row: dict[str, Any]) -> list[str]:
    return ["-" if row[key] is None else form.format(row[key]) for key, _, form in _SHOWN]


_LONG_ROWS = 2_000
_LONG_BYTES = 10_000_000


def note(text: str) -> None:
    """Print something beside the results, on stderr."""
    click.echo(text, err=True)


def is_long(replies: Sequence[RecordedReply]) -> bool:
    """Return whether working through so many replies takes seconds and more."""
    return len(replies) > _LONG_ROWS


def note_reading(files: Iterable[Path]) -> None:
    """Print of large files that they are being read."""
    for file in files:
        size = file.stat().st_size
        if size > _LONG_BYTES:
            note(f"reading {file}: {size / 1e6:,.0f} MB")


def to_train_on(files: Sequence[Path], *, by: Literal["row", "prompt"]) -> list[RecordedReply]:
    """Return replies spread evenly over the files, at most as many as a training takes.

    Raises:
        ConfigError: a row or a file cannot be used.

    """
    from penstock.predict.train.datasets import TRAINED_MAX, read_rows, replies_of, spread

    note_reading(files)
    sample = spread(chain.from_iterable(map(read_rows, files)), TRAINED_MAX, by=by)
    if not sample.whole:
        most = f"{TRAINED_MAX:,}" + (" prompts" if by == "prompt" else "")
        note(
            f"{sample.seen:,} rows, more than the {most} of a training: {len(sample.rows):,} are "
            "taken, spread evenly, the same ones every time"
        )
    replies = replies_of(sample.rows)
    _note_fitting(replies)
    return replies


def last_ones(files: Sequence[Path], most: int) -> list[RecordedReply]:
    """Return the last `most` replies of the files.

    Raises:
        ConfigError: a row or a file cannot be used.

    """
    from penstock.predict.train.datasets import read_rows, replies_of

    note_reading(files)
    replies = replies_of(deque(chain.from_iterable(map(read_rows, files)), maxlen=most))
    _note_fitting(replies)
    return replies


def _note_fitting(replies: Sequence[RecordedReply]) -> None:
    if is_long(replies):
        note(f"fitting to {len(replies):,} replies; this takes a minute or some")


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = OutFile()
_PLOT_KINDS = (".png", ".svg", ".pdf")


@click.group(name="predict")
def command() -> None:
    """Train, evaluate and report estimates of how many tokens replies will have."""


@command.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--out", required=True, type=_OUT, help="Where the prior is written.")
@click.option(
    "--labelled/--unlabelled",
    default=True,
    show_default=True,
    help="Whether the routes in FILES are those of the calls to come.",
)
@click.option(
    "--learner",
    type=click.Choice(["numpy", "boosted"]),
    default="numpy",
    show_default=True,
    help="numpy's own trees, or LightGBM over the last 5,000 replies, which loading then needs.",
)
@click.option(
    "--folds",
    is_flag=True,
    help="Write five priors, each without a fifth of the prompts, as the shipped ones that "
    "--learner boosted is told of.",
)
def train(files: tuple[Path, ...], out: Path, labelled: bool, learner: str, folds: bool) -> None:
    """Train a prior from recorded replies (parquet or JSON lines).

    Rows need `prompt` and `output_tokens`, and may have `route`, `model` and `max_tokens`. The
    prior holds numbers only, no text. The shipped prior was made with --unlabelled, the shipped
    fold priors with --unlabelled --folds.

    Of more than 20,000 rows 20,000 are taken, spread evenly over FILES and the same ones every
    time; with --unlabelled all rows of 20,000 prompts, with --learner boosted the last 5,000 rows.
    """
    if learner == "boosted" and not labelled:
        raise click.UsageError("--unlabelled: a prior without labels is made by numpy alone.")
    if folds and labelled:
        raise click.UsageError("--folds: fold priors know no routes: give --unlabelled as well.")
    from penstock.predict.prior.file import write_prior
    from penstock.predict.prior.folds import shipped_folds, write_folds
    from penstock.predict.train.datasets import lesson
    from penstock.predict.train.shared import learner as fit_of
    from penstock.predict.train.shared import train_folds, train_shared

    keep_apart({"FILES": files, "--out": out})
    if labelled:
        fit = fit_of(learner, wider=_shipped(), folds=shipped_folds())
        replies = _last_ones(files) if learner == "boosted" else to_train_on(files, by="row")
        write_prior(out, fit([lesson(reply.call, reply.output_tokens) for reply in replies]))
    else:
        replies = to_train_on(files, by="prompt")
        if folds:
            write_folds(out, train_folds(replies))
        else:
            write_prior(out, train_shared(replies))
    click.echo(f"{out}: {out.stat().st_size:,} bytes, from {len(replies):,} replies")


def _last_ones(files: Sequence[Path]) -> list[RecordedReply]:
    from penstock.predict.train.boosted import LESSONS_MAX

    return last_ones(files, LESSONS_MAX)


@command.command()
@click.option("--train", "train_file", type=_FILE, help="Learn from these replies first.")
@click.option("--test", "test_file", required=True, type=_FILE, help="Score on these replies.")
@click.option("--online", is_flag=True, help="Stream the test file: predict, then learn.")
@click.option("--json", "json_file", type=_OUT, help="Write all figures here as JSON.")
@click.option(
    "--prior",
    default="auto",
    show_default=True,
    help="shipped, none, or a file from `train`; auto is none for a cold stream, else shipped.",
)
@click.option(
    "--learner",
    type=click.Choice(["auto", "numpy", "boosted"]),
    default="auto",
    show_default=True,
    help="Last stage fitted to --train: numpy's own trees, or LightGBM; auto takes it if there.",
)
@click.option("--seed", default=0, show_default=True, help="Order in which --train is replayed.")
def evaluate(
    train_file: Path | None,
    test_file: Path,
    online: bool,
    json_file: Path | None,
    prior: str,
    learner: str,
    seed: int,
) -> None:
    """Score the predictor on recorded replies, frozen or learning as it goes.

    Rows of both files need `prompt` and `output_tokens`, and may have `route`, `model` and
    `max_tokens`. Of more than 20,000 rows in --train, 20,000 are taken, spread evenly over it and
    the same ones every time.
    """
    from penstock.predict.evaluate import evaluate as run
    from penstock.predict.train.datasets import read_replies

    keep_apart({"--train": train_file, "--json": json_file})
    keep_apart({"--test": test_file, "--json": json_file})
    if prior == "auto":
        prior = "none" if online and train_file is None else "shipped"
    predictor = _predictor(train_file, prior, learner, seed)
    note_reading([test_file])
    replies = read_replies(test_file)
    with click.progressbar(
        length=len(replies),
        label=f"scoring {len(replies):,} replies",
        file=sys.stderr,
        hidden=not is_long(replies),
    ) as bar:
        report = run(predictor, replies, online=online, progress=bar.update)
    if json_file is not None:
        write_text(json_file, json.dumps(report, indent=1, allow_nan=False) + "\n")
    print_figures(report)


def _plot_file(_context: click.Context, _option: click.Parameter, out: Path) -> Path:
    if out.suffix.lower() not in _PLOT_KINDS:
        raise click.BadParameter(
            f"{str(out)!r} must end in {', '.join(_PLOT_KINDS)}: its ending says what is drawn"
        )
    return out


@command.command()
@takes_log()
@click.option(
    "--out",
    default="predict-report.png",
    show_default=True,
    type=_OUT,
    callback=_plot_file,
    help="Plot: PNG, SVG or PDF, by its ending.",
)
@click.option("--json", "json_file", type=_OUT, help="Write the figures here as JSON.")
def report(log: Path, out: Path, json_file: Path | None) -> None:
    """Plot how well estimates held, from a decision log (JSON lines).

    A last line that was cut, as a crash leaves it, is passed over, and stderr says so.
    """
    from penstock.predict.evaluate import plot_report, summarise

    keep_apart({"LOG": log, "--out": out, "--json": json_file})
    settled = _settled(log)
    if not settled:
        raise click.ClickException(
            f"{log}: no line has an estimate and a real token count: is it a decision log, and did "
            "any request complete?"
        )
    figures = summarise(settled)
    make_folder(out)
    plot_report(settled, out)
    if json_file is not None:
        write_text(json_file, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    print_figures(figures)
    click.echo(f"plot: {out}")


def _settled(log: Path) -> list[Settled]:
    """Return the estimates of requests that completed with a count of the provider's."""
    from penstock.predict.evaluate import Settled

    settled = []
    for record in records_of(log):
        facts = record.outcome
        if facts is None or facts.result != "completed" or facts.output_tokens is None:
            continue
        # A count that was estimated from the text is no truth to hold an estimate against.
        if getattr(record.what, "reported", True):
            group = facts.route or facts.traffic_class
            estimate = (facts.p50_tokens, facts.p90_tokens, facts.source)
            settled.append(Settled(*estimate, facts.output_tokens, group))
    return settled


def _prior(name: str) -> LogTokens | None:
    from penstock.predict.prior.file import read_prior

    if name == "none":
        return None
    if name == "shipped":
        return _shipped()
    try:
        return read_prior(Path(name))
    except OSError as error:
        raise click.BadParameter(
            f"{name!r} cannot be read ({error.strerror or error}); it must be shipped, none or a "
            "file from `penstock predict train`: is it mistyped?",
            param_hint="--prior",
        ) from error


def _shipped() -> LogTokens:
    from penstock.predict.prior.file import shipped_prior

    return shipped_prior()


def _predictor(
    train_file: Path | None, prior_name: str, learner: str, seed: int
) -> OnlinePredictor:
    from penstock.predict.online.predictor import OnlinePredictor
    from penstock.predict.prior.folds import shipped_folds
    from penstock.predict.train.datasets import lesson
    from penstock.predict.train.shared import learner as fit_of
    from penstock.predict.train.training import train_predictor

    prior = _prior(prior_name)
    if train_file is None:
        return OnlinePredictor.cold() if prior is None else OnlinePredictor.starting_from(prior)
    folds = shipped_folds() if prior_name == "shipped" else None
    fit = fit_of(learner, wider=prior, folds=folds)
    replies = to_train_on([train_file], by="row")
    lessons = [lesson(reply.call, reply.output_tokens) for reply in replies]
    return train_predictor(lessons, fit, seed=seed)
