"""JSON, by orjson where it is installed (1.4 us against 4.5 us for a body of 2 kB)."""

import json
from typing import Any

try:
    import orjson

    def loads(data: bytes | bytearray | str) -> Any:
        """Return the parsed JSON.

        Raises:
            ValueError: it is none.

        """
        return orjson.loads(data)

    def dumps(value: Any) -> bytes:
        """Return compact JSON, in UTF-8."""
        return orjson.dumps(value)

except ImportError:

    def loads(data: bytes | bytearray | str) -> Any:
        """Return the parsed JSON.

        Raises:
            ValueError: it is none.

        """
        return json.loads(data)

    def dumps(value: Any) -> bytes:
        """Return compact JSON, in UTF-8."""
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def loads_object(data: bytes | bytearray | str) -> dict[str, Any] | None:
    """Return the parsed JSON object; None if it is broken or something else."""
    try:
        value = loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
