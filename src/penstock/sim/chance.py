"""Chance that depends on (seed, stream, index) alone, not on how many draws came before.

Two policies that send the same requests in a different order thus meet the same luck request by
request, which makes their difference mean something (common random numbers).
"""

from statistics import NormalDist

_MASK = (1 << 64) - 1
_UNIT = 1.0 / (1 << 53)
_NORMAL = NormalDist()


def unit(seed: int, stream: int, index: int) -> float:
    """Return a number in (0, 1), always the same one for the same three whole numbers.

    Source:
        The finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), applied to each part.

    """
    mixed = _mix(_mix(_mix(seed) ^ stream) ^ index)
    return ((mixed >> 11) + 0.5) * _UNIT


def standard_normal(seed: int, stream: int, index: int) -> float:
    """Return a draw from N(0, 1), always the same one for the same three whole numbers."""
    return _NORMAL.inv_cdf(unit(seed, stream, index))


def normal_of(u: float) -> float:
    """Return the quantile of N(0, 1) for a draw u from [0, 1)."""
    return _NORMAL.inv_cdf(u or _UNIT)


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
