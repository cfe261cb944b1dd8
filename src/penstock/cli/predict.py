"""`penstock predict`: train, evaluate and report token estimates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.out_file import OutFile, keep_apart, make_folder, write_text

if TYPE_CHECKING:
    from penstock.predict.predictor import Predictor
    from penstock.predict.prior import LogTokens

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
    """
    if learner == "boosted" and not labelled:
        raise click.UsageError("--unlabelled: a prior without labels is made by numpy alone.")
    if folds and labelled:
        raise click.UsageError("--folds: fold priors know no routes: give --unlabelled as well.")
    from penstock.predict.datasets import read_replies
    from penstock.predict.fold_priors import shipped_folds, write_folds
    from penstock.predict.learners import learner as fit_of
    from penstock.predict.lessons import lesson
    from penstock.predict.prior_file import write_prior
    from penstock.predict.shared_training import train_folds, train_shared

    keep_apart({"FILES": files, "--out": out})
    replies = [reply for file in files for reply in read_replies(file)]
    if labelled:
        lessons = [lesson(reply.call, reply.output_tokens) for reply in replies]
        write_prior(out, fit_of(learner, wider=_shipped(), folds=shipped_folds())(lessons))
    elif folds:
        write_folds(out, train_folds(replies))
    else:
        write_prior(out, train_shared(replies))
    click.echo(f"{out}: {out.stat().st_size:,} bytes, from {len(replies):,} replies")


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
    `max_tokens`.
    """
    from penstock.predict.datasets import read_replies
    from penstock.predict.evaluation import evaluate as run

    keep_apart({"--train": train_file, "--json": json_file})
    keep_apart({"--test": test_file, "--json": json_file})
    if prior == "auto":
        prior = "none" if online and train_file is None else "shipped"
    predictor = _predictor(train_file, prior, learner, seed)
    report = run(predictor, read_replies(test_file), online=online)
    if json_file is not None:
        write_text(json_file, json.dumps(report, indent=1, allow_nan=False) + "\n")
    _print(report)


def _plot_file(_context: click.Context, _option: click.Parameter, out: Path) -> Path:
    if out.suffix.lower() not in _PLOT_KINDS:
        raise click.BadParameter(
            f"{str(out)!r} must end in {', '.join(_PLOT_KINDS)}: its ending says what is drawn"
        )
    return out


@command.command()
@click.argument("log", type=_FILE)
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
    """Plot how well estimates held, from a decision log (JSON lines)."""
    from penstock.predict.report import plot_report, read_log, summarise

    keep_apart({"LOG": log, "--out": out, "--json": json_file})
    records = read_log(log)
    figures = summarise(records)
    make_folder(out)
    plot_report(records, out)
    if json_file is not None:
        write_text(json_file, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    _print(figures)
    click.echo(f"plot: {out}")


def _prior(name: str) -> LogTokens | None:
    from penstock.predict.prior_file import read_prior

    if name == "none":
        return None
    return _shipped() if name == "shipped" else read_prior(Path(name))


def _shipped() -> LogTokens:
    from penstock.predict.prior_file import shipped_prior

    return shipped_prior()


def _predictor(train_file: Path | None, prior_name: str, learner: str, seed: int) -> Predictor:
    from penstock.predict.datasets import read_replies
    from penstock.predict.fold_priors import shipped_folds
    from penstock.predict.learners import learner as fit_of
    from penstock.predict.lessons import lesson
    from penstock.predict.predictor import Predictor
    from penstock.predict.training import train_predictor

    prior = _prior(prior_name)
    if train_file is None:
        return Predictor.cold() if prior is None else Predictor.starting_from(prior)
    lessons = [lesson(row.call, row.output_tokens) for row in read_replies(train_file)]
    folds = shipped_folds() if prior_name == "shipped" else None
    return train_predictor(lessons, fit_of(learner, wider=prior, folds=folds), seed=seed)


_SHOWN = (
    ("n", "n", "{:,}"),
    ("bucket_accuracy", "bucket", "{:.3f}"),
    ("pair_ranking", "ranking", "{:.3f}"),
    ("spearman", "spearman", "{:.3f}"),
    ("median_multiplicative_error", "error", "x{:.2f}"),
    ("p90_coverage", "p90 cover", "{:.3f}"),
)


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", *(title for _, title, _ in _SHOWN), box=None)
    groups = [
        ("", {"all": report}),
        *((k, report.get(k, {})) for k in ("stretches", "routes", "models")),
    ]
    for kind, rows in groups:
        if kind:
            table.add_row(f"[bold]{kind}")
        for name, row in rows.items():
            cells = ["-" if row[key] is None else form.format(row[key]) for key, _, form in _SHOWN]
            table.add_row(name or "(none)", *cells)
    console = Console()
    console.print(table)
    if "latency_p50_us" in report:
        console.print(
            f"prediction p50 {report['latency_p50_us']:.0f} us, "
            f"state {report['state_bytes']:,} bytes"
        )
