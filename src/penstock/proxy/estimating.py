"""The configuration's estimates, as the request factory takes them."""

from functools import lru_cache

from penstock.calls.estimate import Row, TablePredictor
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.proxy.config import Loaded
from penstock.proxy.config.models import Config
from penstock.proxy.config.to_core import estimate_of
from penstock.proxy.routing import fits

_ROWS_KEPT = 1000


def table_of(config: Config) -> TablePredictor:
    """Return the configured table: its rows, then trusted caps, then classes."""
    return TablePredictor(
        tuple(
            _row(row.model, row.path, estimate_of(row, "table")) for row in config.estimates.table
        ),
        trusts_cap=config.estimates.trust_max_tokens,
    )


def default_class_of(loaded: Loaded) -> TrafficClass:
    """Return what a call is estimated as while its class is open, as it may go by the estimate."""
    classes = loaded.settings.classes
    if len(classes) == 1:
        return classes[0]
    return TrafficClass("", estimate=estimate_of(loaded.config.estimates.default, "default"))


def _row(model: str, path: str, estimate: TokenEstimate) -> Row:
    @lru_cache(maxsize=_ROWS_KEPT)  # callers choose the names, so memory is bounded
    def row_fits(called: str, tail: str) -> bool:
        return fits(model, called) and fits(path, tail)

    return Row(row_fits, estimate)
