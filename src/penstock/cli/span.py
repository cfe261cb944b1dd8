"""A span of time, as command lines give it."""

import re

import click

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d+)?)([smhd]?)\Z", re.ASCII)


class TimeSpan(click.ParamType[float]):
    """Seconds from 90s, 30m, 2h or 1d, above 0."""

    name = "time"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        found = _SPAN.match(value)
        seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
        if not seconds:
            self.fail(f"{value!r} must be a time above 0, such as 90s, 30m, 2h or 1d", param, ctx)
        return seconds
