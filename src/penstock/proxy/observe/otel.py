"""Whether the sidecar exports traces and metrics, and by what."""

import os
from typing import TYPE_CHECKING

from penstock.errors import ConfigError
from penstock.proxy.config.models import Otel
from penstock.telemetry.wanted import exporters

if TYPE_CHECKING:
    from penstock.telemetry.pipeline import Pipeline


def pipeline_of(table: Otel) -> "Pipeline | None":
    """Return what exports; None, with nothing imported, if nobody asks for it.

    Raises:
        ConfigError: it cannot, because a package is missing or a variable is wrong.

    """
    asked = exporters(os.environ, enabled=table.enabled)
    if not asked:
        return None
    try:
        from penstock.telemetry.pipeline import Pipeline
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"OpenTelemetry is asked for (otel.enabled, or OTEL_* variables), and {error.name} is "
            "not installed: pip install 'penstock[otel]', or set otel.enabled = false"
        ) from None
    return Pipeline(asked, "penstock")
