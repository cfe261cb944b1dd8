"""What a call refers to by id: things that a provider keeps, and that only one account has."""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_FIELD = re.compile(
    r"(?:previous_response_id|conversation|container|(?:[a-z]+_)*file_ids?|vector_store_ids?"
    r"|(?:training|validation)_file)\Z"
)
_SIGNS = (
    b'"previous_response_id"',
    b'"conversation"',
    b'"container"',
    b"file_id",
    b'"vector_store_id',
    b'"item_reference"',
)
"""One of these stands in every body that refers to something; six searches take 1 us for 2 kB."""
_ID_OF_REPLY = re.compile(rb'"(?:id|container_id|file_id)"\s*:\s*"([A-Za-z0-9_.:-]{4,256})"')
MOST_IDS = 100
"""Of one body: what names more is read no further."""
MOST_ID_CHARS = 256


def may_refer(body: bytes) -> bool:
    """Return whether a JSON body may refer to anything; a scan, as most bodies do not."""
    for sign in _SIGNS:  # noqa: SIM110 - a generator would cost more than the searches
        if sign in body:
            return True
    return False


def references_of(body: Mapping[str, Any]) -> list[str]:
    """Return the ids of what a parsed body refers to."""
    found: list[str] = []
    stack: list[Any] = [body]
    while stack and len(found) < MOST_IDS:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            for name, value in item.items():
                if isinstance(name, str) and _FIELD.match(name):
                    found.extend(islice(_ids(value), MOST_IDS))
                if isinstance(value, dict | list):
                    stack.append(value)
            if item.get("type") == "item_reference":
                found.extend(_ids(item.get("id")))
    return found


def _ids(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else (value,):
        name = each.get("id") if isinstance(each, dict) else each
        if isinstance(name, str) and 0 < len(name) <= MOST_ID_CHARS:
            yield name


def ids_in_reply(text: bytes) -> list[str]:
    """Return the ids that a reply, or the beginning of one, gives to what it made."""
    return [match[1].decode() for match in islice(_ID_OF_REPLY.finditer(text), MOST_IDS)]
