"""JSON, by orjson where it is installed (1.4 us against 4.5 us for a body of 2 kB).

Both ways write dataclasses as objects and infinities as null, and both read what JSON's grammar
allows and orjson does not: half an emoji (where JavaScript cuts a text between two surrogates it
writes a lone one) and numbers beyond a float. One such number must not make a reply unreadable.
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


MOST_VALUES = 1_000_000
"""Of a body: three times as many as OpenAI takes numbers for the tokens of one call. Each takes a
hundred bytes and 0.2 us once it is read: 32 MB of `[],` are 1 GB and 7 s."""
_TOO_MANY = re.compile(
    rb'(?:[^",\[{]*+(?:"(?:[^"\\]++|\\.)*+"[^",\[{]*+)*+[,\[{]){%d}+' % MOST_VALUES, re.DOTALL
)
"""So many separators outside of texts, found without going back and without being kept."""
_MOST_DIGITS = 640
"""Of an integer that is read exactly; Python's own limit may not be set lower."""


_HOW: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False}


def _dumps(value: Any) -> bytes:
    try:
        text = json.dumps(value, default=plain, allow_nan=False, **_HOW)
    except (ValueError, RecursionError):  # an infinity, or too deep for Python
        text = _piecewise(value)
    return text.encode(errors="backslashreplace")  # as JSON spells it too


class _Between(str):
    """A piece of JSON between two values."""

    __slots__ = ()


def _piecewise(value: Any) -> str:
    """Return JSON of any depth: orjson reads 1024 levels, and Python writes less than 1000."""
    pieces: list[str] = []
    rest = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, _Between):
            pieces.append(each)
        elif isinstance(each, dict | list):
            named = isinstance(each, dict)
            parts = [_Between("{" if named else "[")]
            for key in each:
                comma = "," if len(parts) > 1 else ""
                name = f"{json.dumps(str(key), **_HOW)}:" if named else ""
                parts += [_Between(comma + name), each[key] if named else key]
            rest += reversed([*parts, _Between("}" if named else "]")])
        else:
            pieces.append(json.dumps(plain(each), **_HOW))
    return "".join(pieces)


class DepthError(ValueError):
    """JSON that is nested deeper than the parsers go: orjson 1024 levels, Python less than 1000."""


MOST_LEVELS = 500
"""Read of what is nested deeper than the parsers go; Python's own stack takes its part of 1000."""
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{}\]]', re.DOTALL)


def _shallow(data: bytes) -> bytes:
    """Return the JSON with null in place of whatever stands deeper than `MOST_LEVELS`.

    Raises:
        DepthError: nothing does.

    """
    pieces: list[bytes] = []
    level = begins = 0
    for match in _BRACKET.finditer(data):
        mark = match[0]
        if mark in (b"[", b"{"):
            level += 1
            if level == MOST_LEVELS + 1:
                pieces.append(data[begins : match.start()])
        elif mark in (b"]", b"}"):
            if level == MOST_LEVELS + 1:
                pieces.append(b"null")
                begins = match.end()
            level -= 1
    if not pieces:
        raise DepthError("nested too deeply for what is left of the stack")
    rest = b"" if level > MOST_LEVELS else data[begins:]  # where it was cut, broken it stays
    return b"".join((*pieces, rest))


def _loads_allowed(data: bytes | bytearray | str) -> Any:
    """Return the parsed JSON; numbers beyond a float are infinite.

    A BOM and UTF-16 are read, as Python's clients and servers do.

    Raises:
        ValueError: it is none.
        DepthError: it is nested deeper than Python reads.

    """
    try:
        return json.loads(data, parse_constant=_refuse, parse_int=_integer)
    except RecursionError:
        raise DepthError("nested too deeply") from None


LARGE_BYTES, MOST_TIMES = 1 << 20, 48
"""orjson ends the process where it gets no memory (version 3.13: a segmentation fault). It takes 13
times a text's bytes to read it, and 33 more for `{"":1},` over and over."""


def has_room(size_bytes: int) -> bool:
    """Return whether the process may have so much more memory, none of which is touched.

    Asked where a library in C would end the process if it could not have it.
    """
    try:
        bytes(size_bytes)
    except MemoryError:
        return False
    return True


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


try:
    import orjson

    def loads(data: bytes | bytearray | str) -> Any:
        """Return the parsed JSON.

        Raises:
            ValueError: it is none.
            MemoryError: there is no room for it.

        """
        if len(data) > LARGE_BYTES and not has_room(len(data) * MOST_TIMES):
            return _loads_allowed(data)
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return _loads_allowed(data)

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
            MemoryError: there is no room for it.

        """
        return json.loads(data, parse_int=_integer)

    def dumps(value: Any) -> bytes:
        """Return compact JSON, in UTF-8; a lone surrogate stays one, as an escape."""
        return _dumps(value)


def has_too_many_values(data: bytes) -> bool:
    """Return whether a JSON text has more than `MOST_VALUES`, without reading them."""
    if len(data) <= MOST_VALUES:
        return False
    if data.count(b",") + data.count(b"[") + data.count(b"{") < MOST_VALUES:
        return False  # the quick answer; texts have commas too
    return _TOO_MANY.match(data) is not None


def lenient_loads(data: bytes) -> Any:
    """Return the parsed JSON of who writes a little else; what is read here is passed on as it is.

    Python writes NaN and Infinity, which JSON has not, and reads them. Others
    write bytes that are no UTF-8, half a character of a token or another charset; JavaScript reads
    those as U+FFFD. Others put what a model wrote between quotes, line ends and all. What no parser
    here goes down to is None as well.

    Raises:
        ValueError: it is none.

    """
    try:
        return loads(data)
    except (DepthError, RecursionError):
        return lenient_loads(_shallow(data))
    except ValueError:
        text = data.decode("utf-8-sig", errors="replace")
    try:
        return json.loads(text, parse_int=_integer, strict=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_deep(data: bytes) -> bool:
    """Return whether JSON is nested deeper than is read: `lenient_loads` leaves some of it out."""
    try:
        loads(data)
    except (DepthError, RecursionError):
        return True
    except ValueError:
        return False
    return False


def lenient_object(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object of who writes a little else; None if it is broken or another value."""
    try:
        value = lenient_loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def loads_object(data: bytes | bytearray | str) -> dict[str, Any] | None:
    """Return the parsed JSON object; None if it is broken or something else."""
    try:
        value = loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


NO_CODES = (0, 200, "0", "200", "ok", "OK", "success")


def error_in(reply: Mapping[str, Any]) -> Any:
    """Return the error that a reply or an event holds; something falsy if it holds none.

    Many send the field along with every good reply: null, an object without a word in it, or one
    whose code says that all is well.
    """
    error = reply.get("error")
    if not isinstance(error, Mapping):
        return error
    return any(error.values()) and error.get("code") not in NO_CODES and error


def error_of(reply: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the error that a reply holds, as an object; None if it holds none."""
    error = error_in(reply)
    if not error:
        choices = reply.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        error = error_in_choice(first) if isinstance(first, dict) else None
    if not error and "error" in (reply.get("object"), reply.get("type")):
        error = reply
    if not error:
        return None
    return dict(error) if isinstance(error, Mapping) else {"message": str(error)}


def error_in_choice(choice: Mapping[str, Any]) -> Any:
    """Return the error that a choice holds, as OpenRouter's do; something falsy if it holds none.

    Some say no more than that it ended with one: it is one where nothing was written.
    """
    error = error_in(choice)
    if error or choice.get("finish_reason") != "error":
        return error
    written = choice.get("message") or choice.get("delta") or choice
    texts = isinstance(written, Mapping) and (written.get("content") or written.get("text"))
    return None if texts else "the reply ended with an error"
