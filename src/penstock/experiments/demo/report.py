"""The demo's one-file HTML report: the table, the plots, and how to read them."""

from pathlib import Path

from penstock.experiments.demo.arm import LOAD, SLOTS, ArmResult
from penstock.experiments.demo.verdict import UNANSWERED, DemoVerdict, KeptShare, rows
from penstock.metrics import BUCKETS, RequestOutcome, RequestRecord, RunMetrics


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
    from penstock.experiments.report import Plot, Section, to_html
    from penstock.experiments.tables import Column, ResultTable

    intro = (
        f"A provider with {SLOTS} hidden slots got the same {len(arms[0].records)} chat "
        f"completions {len(arms)} times, at {LOAD:g} times what it can do, from the openai "
        "SDK over real sockets. What differs is only who stood between."
    )
    found = "\n\n".join((UNANSWERED, *(f"{line}." for line in verdict.lines())))
    columns = (Column("figure", "", text=True), *(Column(name, name) for name in results))
    cells = tuple((label, *each) for label, each in rows(results))
    sections = [
        Section("results", "What came of it", found, ResultTable("results", columns, (), cells)),
        Section(
            "latencies",
            "How long each request took",
            "Each dot is a request, at the time it was sent; crosses were refused. Called "
            "directly, requests queue inside the provider, where a short one waits behind "
            "every long one.",
            plots=(Plot("latencies", "Latency by the time of sending.", _latencies(arms)),),
        ),
        Section(
            "deadlines",
            "Who met its deadline",
            "",
            plots=(Plot("deadlines", "Requests in time, by size.", _deadlines(arms)),),
        ),
    ]
    path.write_text(to_html(sections, title="The demo", intro=intro), "utf-8")


def _latencies(arms: list[ArmResult]) -> str:
    from penstock.experiments.plots import COLOURS, sheet, svg

    with sheet(len(arms), width=11.0, height=3.2) as (figure, axes):
        top = max((r.latency_s for arm in arms for r in arm.records), default=1.0) * 1.3
        for axis, arm in zip(axes, arms, strict=True):
            axis.set_title(arm.name)
            for colour, bucket in zip(COLOURS, BUCKETS, strict=False):
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
    from penstock.experiments.plots import COLOURS, sheet, svg

    with sheet(1, width=8.0, height=2.8) as (figure, axes):
        axis = axes[0]
        width = 0.8 / len(arms)
        for number, (colour, arm) in enumerate(zip(COLOURS, arms, strict=False)):
            shares = []
            for bucket in BUCKETS:
                every = [r for r in arm.records if r.bucket == bucket]
                shares.append(100 * sum(r.in_time for r in every) / max(1, len(every)))
            places = [place + (number - (len(arms) - 1) / 2) * width for place in range(4)]
            axis.bar(places, shares, width * 0.92, color=colour, label=arm.name)
        axis.set_xticks(range(4), BUCKETS)
        axis.set_ylabel("in time, %")
        axis.set_ylim(0, 105)
        axis.legend(loc="upper left", ncols=len(arms), bbox_to_anchor=(0, 1.18))
        return svg(figure, describe="Share of requests that met their deadline, by size and arm")


def _of(arm: ArmResult, bucket: str, outcome: RequestOutcome) -> list[RequestRecord]:
    return [r for r in arm.records if r.bucket == bucket and r.outcome is outcome]
