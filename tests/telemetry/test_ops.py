"""The Grafana dashboard and the alert rules speak of what a sidecar's /metrics really has."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.proxy.observe.metrics import Metrics
from penstock.sim.mock.server import MockServer
from tests.programs import needed
from tests.proxy.sidecars import HELLO, call, eventually, in_front_of, sidecar
from tests.proxy.test_relay import scripted
from tests.proxy.test_spent_accounts import SPENT
from tests.telemetry.collector import collecting

NAME = re.compile(r"\b(?:penstock|process)_[a-z0-9_]+\b(?!:)")
LABELS = re.compile(r"[{,]\s*([a-z_]+)(?==|!=)|(?:by|on) \(([a-z_, ]+)\)|\{\{([a-z_]+)\}\}")
TOKEN = "a-token-of-some-length-3f9c"
BEARER = {"authorization": f"Bearer {TOKEN}"}
OF_PROMETHEUS = {"le", "instance", "job"}


@pytest.fixture(scope="module")
def pages(mock: MockServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The page of a sidecar with everything on: as it starts, and once an account is lost."""
    log = tmp_path_factory.mktemp("log") / "decisions.jsonl"
    head = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
    with (
        pytest.MonkeyPatch.context() as patched,
        collecting() as collector,
        scripted([head + b"content-length: %d\r\n\r\n" % len(SPENT) + SPENT]) as spent,
    ):
        toml = (
            in_front_of(mock.url, upstream='models = ["m"]', more='token_env = "TOKEN"')
            + f"""
[[upstreams]]
name = "spent"
base_url = "http://127.0.0.1:{spent.port}/v1"
auth = "none"
models = ["spent"]
[log]
decisions_path = '{log}'
[otel]
enabled = true
"""
        )
        spent.go()
        patched.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with sidecar(toml, {"TOKEN": TOKEN}) as running:

            def metrics() -> str:
                eventually(running.idle)
                return call(
                    running.admin_port, "/metrics", method="GET", body=None, headers=BEARER
                ).body.decode()

            eventually(lambda: "penstock_predictor_learned" in metrics())  # it is loaded
            fresh = metrics()
            pin = {"what": "window", "name": "open", "value": 3, "for_s": 600}
            assert call(running.admin_port, "/admin/pins", body=pin, headers=BEARER).status == 200
            for more in ({}, {"stream": True}, {"max_tokens": "many"}):
                call(running.port, body={**HELLO, **more})
            assert call(running.port, body={**HELLO, "model": "spent"}).status == 429
            # Estimates are judged once the predictor, in a thread of its own, has learnt from some.
            eventually(
                lambda: (
                    call(running.port).status == 200
                    and "penstock_predictor_p90_coverage{" in metrics()
                )
            )
            yield fresh, metrics()


@pytest.fixture
def page(pages: tuple[str, str]) -> str:
    """What /metrics says of a sidecar that has met all sorts of requests."""
    return pages[1]


def names(page: str) -> set[str]:
    """Return the names of all series that the page has or can have."""
    found: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
        parts = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        found.update(name + part for part in parts)
    return found


def labels(page: str) -> set[str]:
    metrics = Metrics()
    declared = {label for each in metrics.tallies for label in each.labels}
    declared.update(label for each in metrics.spreads for label in each.labels)
    return declared | set(re.findall(r'[{,]([a-z_]+)="', page)) | OF_PROMETHEUS


def dashboard(root: Path) -> Any:
    return json.loads((root / "ops/grafana/penstock.json").read_text())


def expressions(root: Path) -> list[str]:
    """Return what the dashboard asks for, with Grafana's variables filled in."""
    asked = [
        target["expr"] for panel in dashboard(root)["panels"] for target in panel.get("targets", ())
    ]
    return [each.replace("$__rate_interval", "5m").replace("$", "") for each in asked]


def test_every_series_and_label_of_dashboard_and_rules_is_on_the_page(
    page: str, root: Path
) -> None:
    board = (root / "ops/grafana/penstock.json").read_text()
    rules = (root / "ops/prometheus/penstock.rules.yml").read_text()
    legends = [t["legendFormat"] for p in dashboard(root)["panels"] for t in p.get("targets", ())]
    asked = set(NAME.findall(board)) | set(NAME.findall(rules))
    assert asked
    assert asked - names(page) == set()
    of = LABELS.findall("\n".join([*expressions(root), *legends, rules]))
    used = {label.strip() for groups in of for group in groups for label in group.split(",")}
    assert used - labels(page) - {""} == set()


def explained(root: Path) -> set[str]:
    """Return the names of the metrics that the reference page has."""
    told = (root / "docs/reference/metrics.md").read_text()
    for stem, parts in re.findall(r"`(penstock_predictor)_\w+`((?:, `_\w+`)+)", told):
        told += " ".join(f"`{stem}{part}`" for part in re.findall(r"`(_\w+)`", parts))
    return set(re.findall(r"`(penstock_\w+)`", told))


def test_every_explained_metric_has_its_type_and_help_before_its_first_value(
    pages: tuple[str, str], root: Path
) -> None:
    fresh = pages[0]
    for what in ("TYPE", "HELP"):
        there = set(re.findall(rf"^# {what} (\S+) ", fresh, re.MULTILINE))
        assert explained(root) - there == set()
    assert "penstock_pause_seconds{" not in fresh


def test_every_metric_of_the_sidecar_is_explained(page: str, root: Path) -> None:
    there = re.findall(r"^# TYPE (penstock_\S+) ", page, re.MULTILINE)
    assert len(there) > 30
    assert set(there) - explained(root) == set()


def test_each_panel_has_a_place_of_its_own(root: Path) -> None:
    panels = dashboard(root)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])
        }  # fmt: skip
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.fixture(scope="module")
def promtool() -> str:
    return needed("promtool", "prometheus")


def test_promtool_finds_no_fault_with_the_page(page: str, promtool: str) -> None:
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_promtool_reads_every_rule_and_every_panels_expression(
    root: Path, tmp_path: Path, promtool: str
) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions(root))
    ]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    for path in (file, root / "ops/prometheus/penstock.rules.yml"):
        ran([promtool, "check", "rules", str(path)])


def test_alerts_are_raised_when_they_should_be_and_only_then(root: Path, promtool: str) -> None:
    ran([promtool, "test", "rules", "penstock.test.yml"], cwd=root / "ops" / "prometheus")


def test_every_alert_is_explained(root: Path) -> None:
    rules = (root / "ops/prometheus/penstock.rules.yml").read_text()
    told = (root / "docs/how-to/prometheus.md").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) > 8
    assert [each for each in alerts if f"`{each}`" not in told] == []


def ran(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
