"""Whether the environment asks for OpenTelemetry; reads variables only, imports nothing of it."""

from collections.abc import Mapping
from typing import Literal

Signal = Literal["traces", "metrics"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics")
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def exporters(env: Mapping[str, str], *, enabled: bool | None = None) -> dict[Signal, list[str]]:
    """Return the exporters of each signal by name; empty if nothing is to be exported.

    Args:
        env: where `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` and
            `OTEL_EXPORTER_OTLP_ENDPOINT` (also for one signal) are looked up.
        enabled: a setting that says so or not; None leaves it to the environment.

    Source:
        OpenTelemetry's specification, "Environment variable specification". There a signal whose
        exporter is not named goes to a collector on this machine; here that takes a word.

    """
    if enabled is False or env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    found: dict[Signal, list[str]] = {}
    for signal in SIGNALS:
        named = env.get(f"OTEL_{signal.upper()}_EXPORTER", "")
        meant = env.get(_ENDPOINT) or env.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        if not named and (enabled or meant):
            named = "otlp"
        names = [name.strip() for name in named.split(",")]
        names = [name for name in names if name not in ("", "none")]
        if names:
            found[signal] = names
    return found
