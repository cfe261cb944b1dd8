"""Traces a program's calls if the program, or its environment, asks for it.

Nothing of OpenTelemetry is imported before that: a program that has set up a provider has imported
it itself.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.calls.spec import RequestSpec
from penstock.core.events import Action, Event
from penstock.core.model import Request
from penstock.errors import ConfigError
from penstock.telemetry.wanted import exporters

if TYPE_CHECKING:
    from penstock.telemetry.tracing import Telemetry

logger = logging.getLogger("penstock.program")
_NOTHING: dict[str, str] = {}


class AutoTracer:
    """The program's own tracer and meter providers, once it has any; else the environment's.

    The first call for which there is either decides.
    """

    def __init__(self) -> None:
        """Import nothing."""
        self._found: Telemetry | None = None
        self._asked = exporters(os.environ)

    def begin(self, public_id: str, request: Request, spec: RequestSpec) -> None:
        """Begin the request's span if anybody wants it."""
        found = self._found or self._look()
        if found is not None:
            found.begin(public_id, request, spec)

    def headers(self, request_id: int, host: str, port: int | None) -> Mapping[str, str]:
        """Return the headers that carry the trace; none if nobody traces."""
        found = self._found
        return _NOTHING if found is None else found.headers(request_id, host, port)

    def event(self, now: float, event: Event) -> None:
        """Pass an event on."""
        if self._found is not None:
            self._found.event(now, event)

    def action(self, now: float, action: Action) -> None:
        """Pass an action on."""
        if self._found is not None:
            self._found.action(now, action)

    def _look(self) -> "Telemetry | None":
        """Return what the program has set up by now."""
        if "opentelemetry.trace" in sys.modules or "opentelemetry.metrics" in sys.modules:
            from opentelemetry import metrics, trace

            tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
            if _is_real(tracers) or _is_real(meters):
                from penstock.telemetry.spans import ApiSpans
                from penstock.telemetry.tracing import Telemetry

                self._found = Telemetry(ApiSpans(tracers), meters)
                return self._found
        if self._asked:
            self._found = _of_environment(self._asked)
            self._asked = {}
        return self._found


def _is_real(provider: Any) -> bool:
    """Return whether a provider is more than the API's stand-in for one that may come."""
    return not type(provider).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics")
    )


def _of_environment(asked: Any) -> "Telemetry | None":
    """Return what exports to the exporters asked for; None, with a warning, if that cannot be."""
    try:
        from penstock.telemetry.pipeline import Pipeline

        return Pipeline(asked, "unknown_service").telemetry
    except ModuleNotFoundError as error:
        logger.warning(
            "OTEL_* variables ask for traces or metrics, and %s is not installed: "
            "pip install 'penstock[otel]'; calls go on without",
            error.name,
        )
    except ConfigError as error:
        logger.warning("%s; calls go on without traces and metrics", error)
    return None
