"""The demo's one-file HTML report: the table, the plots, and how to read them."""

from html import escape
from pathlib import Path

from penstock.experiments.demo.arm import ArmResult
from penstock.experiments.demo.show import UNANSWERED, rows
from penstock.experiments.demo.verdict import DemoVerdict, KeptShare
from penstock.experiments.demo.workload import LOAD, SLOTS
from penstock.metrics import RequestOutcome, RequestRecord, RunMetrics

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --line: #ddd; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e8ea; --line: #3a4148; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; min-width: 36rem; height: auto; background: #fff; border-radius: 4px; }
@media (max-width: 40rem) { th, td { padding: .3rem .35rem; } table { font-size: .9rem; } }
"""


def write(
    path: Path,
    arms: list[ArmResult],
    results: dict[str, RunMetrics],
    verdict: DemoVerdict | KeptShare,
) -> None:
    """Write the report.

    Raises:
        OSError: the file cannot be written.

    """
    body = "\n".join(
        [
            "<h1>penstock demo</h1>",
            (
                f"<p>A provider with {SLOTS} hidden slots got the same {len(arms[0].records)} chat "
                f"completions {len(arms)} times, at {LOAD:g} times what it can do, from the openai "
                "SDK over real sockets. What differs is only who stood between.</p>"
            ),
            _table(results),
            f"<p>{escape(UNANSWERED)}</p>",
            *(f"<p>{escape(line)}.</p>" for line in verdict.lines()),
            "<h2>How long each request took</h2>",
            _wide(_latencies(arms), "latencies, chart"),
            (
                "<p>Each dot is a request, at the time it was sent; crosses were refused. Called "
                "directly, requests queue inside the provider, where a short one waits behind "
                "every long one.</p>"
            ),
            "<h2>Who met its deadline</h2>",
            _wide(_deadlines(arms), "deadlines, chart"),
        ]
    )
    path.write_text(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<title>penstock demo</title>"
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n",
        encoding="utf-8",
    )


def _table(results: dict[str, RunMetrics]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in results)
    lines = "".join(
        f"<tr><td>{escape(label)}</td>{''.join(f'<td>{escape(c)}</td>' for c in cells)}</tr>"
        for label, cells in rows(results)
    )
    return _wide(f"<table><tr><td></td>{head}</tr>{lines}</table>", "table")


def _wide(inner: str, name: str) -> str:
    """Return what scrolls sideways where the page is narrow, so that it stays legible."""
    return f"<div class='wide' tabindex='0' role='region' aria-label='{name}'>{inner}</div>"


_BUCKETS = ("short", "medium", "long", "xlong")


def _latencies(arms: list[ArmResult]) -> str:
    from penstock.experiments.plots.style import COLOURS, sheet, svg

    with sheet(len(arms), width=11.0, height=3.2) as (figure, axes):
        top = max((r.latency_s for arm in arms for r in arm.records), default=1.0) * 1.3
        for axis, arm in zip(axes, arms, strict=True):
            axis.set_title(arm.name)
            for colour, bucket in zip(COLOURS, _BUCKETS, strict=False):
                done = _of(arm, bucket, RequestOutcome.COMPLETED)
                shed = _of(arm, bucket, RequestOutcome.SHED)
                axis.scatter(
                    [r.arrived_at for r in done],
                    [r.latency_s for r in done],
                    s=7,
                    color=colour,
                    label=bucket,
                    alpha=0.8,
                    linewidths=0,
                )
                axis.scatter(
                    [r.arrived_at for r in shed],
                    [max(r.latency_s, 0.01) for r in shed],
                    s=14,
                    marker="x",
                    color=colour,
                    linewidths=0.9,
                )
            axis.set_yscale("log")
            axis.set_ylim(0.01, top)
            axis.set_xlabel("sent at, s")
        axes[0].set_ylabel("latency, s")
        axes[0].legend(loc="lower right", ncols=2, markerscale=2)
        return svg(figure, describe="Latency of every request over the time it was sent, by arm")


def _deadlines(arms: list[ArmResult]) -> str:
    from penstock.experiments.plots.style import COLOURS, sheet, svg

    with sheet(1, width=8.0, height=2.8) as (figure, axes):
        axis = axes[0]
        width = 0.8 / len(arms)
        for number, (colour, arm) in enumerate(zip(COLOURS, arms, strict=False)):
            shares = []
            for bucket in _BUCKETS:
                every = [r for r in arm.records if r.bucket == bucket]
                shares.append(100 * sum(r.in_time for r in every) / max(1, len(every)))
            places = [place + (number - (len(arms) - 1) / 2) * width for place in range(4)]
            axis.bar(places, shares, width * 0.92, color=colour, label=arm.name)
        axis.set_xticks(range(4), _BUCKETS)
        axis.set_ylabel("in time, %")
        axis.set_ylim(0, 105)
        axis.legend(loc="upper left", ncols=len(arms), bbox_to_anchor=(0, 1.18))
        return svg(figure, describe="Share of requests that met their deadline, by size and arm")


def _of(arm: ArmResult, bucket: str, outcome: RequestOutcome) -> list[RequestRecord]:
    return [r for r in arm.records if r.bucket == bucket and r.outcome is outcome]
