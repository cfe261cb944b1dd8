"""Whose account a call is charged to: keys are told apart, and nothing of them is kept."""

import secrets
from collections.abc import Iterable
from hashlib import blake2b

_SALT = secrets.token_bytes(32)
_KEYS = (b"x-api-key", b"api-key")
_LENGTHS = frozenset(map(len, (b"authorization", *_KEYS)))


def account_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return what the scheduler calls the account behind a caller's own key; empty without one.

    A digest under a secret of this process: it tells accounts apart and nothing about the key.
    """
    key = credential(headers)
    return "" if key is None else blake2b(key, key=_SALT, digest_size=16).hexdigest()


def credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the key that a caller presents, or None."""
    for sent_name, value in headers:
        if len(sent_name) not in _LENGTHS:  # of fifteen headers thirteen are passed over
            continue
        name = sent_name.lower()
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip()
        elif name in _KEYS and value.strip():
            return value.strip()
    return None


class Accounts:
    """Tells a program's keys apart: the first one's account is also that of calls without a key."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        """Know no key yet."""
        self._first: str | None = None

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return what the scheduler calls a call's account; empty for the first key's."""
        account = account_of(headers)
        if self._first is None:
            self._first = account
        return "" if account == self._first else account
