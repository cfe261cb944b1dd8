"""Who calls, and what they may ask for: worse treatment, never better, unless configured."""

import hmac
import math
from collections.abc import Iterable
from dataclasses import dataclass

from penstock.calls.hints import Hints
from penstock.proxy.config.load import Loaded
from penstock.proxy.config.models import Caller, Key
from penstock.proxy.declined import Declined, no_key
from penstock.proxy.headers import Header
from penstock.runtime.accounts import credential


@dataclass(frozen=True, slots=True)
class Treatment:
    """How a request will be treated."""

    traffic_class: str
    deadline_s: float
    tenant: str


class Callers:
    """Knows every caller's rights."""

    def __init__(self, loaded: Loaded) -> None:
        """Take over the configuration's keys and classes."""
        config = loaded.config
        # From the best treated to the worst: the order of the file.
        self._rank = {item.name: rank for rank, item in enumerate(config.classes)}
        self._deadline_s = {
            item.name: math.inf if item.deadline_s is None else item.deadline_s
            for item in config.classes
        }
        self._by_bucket: dict[str, str] = {
            bucket: item.name for item in config.classes for bucket in item.buckets
        }
        self._only = config.classes[0].name if len(config.classes) == 1 else None
        by_bucket = [item for item in config.classes if item.buckets]
        self._timed = (
            any(item.deadline_s for item in by_bucket)
            or len({(item.hopeless, item.ttl_s) for item in by_bucket}) > 1
        )
        self._anonymous = config.anonymous
        self._keys = [(loaded.caller_keys[key.name].reveal().encode(), key) for key in config.keys]

    def identify(self, headers: Iterable[Header]) -> Caller:
        """Return the caller's rights.

        Raises:
            Declined: 401, no key or an unknown one (where keys are configured).

        """
        if not self._keys:
            return self._anonymous
        presented = credential(headers)
        if presented is None:
            raise no_key()
        found: Caller | None = None
        for key, rights in self._keys:
            # Every key is compared, in constant time: timing tells nothing about any of them.
            if hmac.compare_digest(key, presented):
                found = rights
        if found is None:
            raise Declined(401, "invalid_api_key", "The API key is not known here.")
        return found

    def needs_length(self, rights: Caller, hints: Hints) -> bool:
        """Return whether a call's predicted length decides something even where nothing waits.

        Its class may be allowed or not by its length, and classes by length may differ in more
        than in their shares of what is scarce.
        """
        if rights.traffic_class is not None:
            return False
        return self._timed if hints.traffic_class is None else bool(self._by_bucket)

    def treat(self, rights: Caller, hints: Hints, bucket: str) -> Treatment:
        """Return how the request will be treated.

        Raises:
            Declined: 400 for a class that does not exist, 403 for asking for more than allowed.

        """
        own = rights.traffic_class or self._by_bucket.get(bucket) or self._only
        assert own is not None, "the configuration's check lets no bucket go without a class"
        name = own
        if hints.traffic_class is not None:
            name = self._asked_class(rights, hints.traffic_class, own)
        deadline_s = self._deadline_s[name]
        if hints.deadline_s is not None:
            shortest = rights.shortest_deadline_s
            floor = deadline_s if shortest is None else shortest
            if hints.deadline_s < floor:
                least = "any" if math.isinf(floor) else f"one below {floor * 1000:g} ms"
                raise Declined(
                    403,
                    "deadline_not_allowed",
                    f"x-penstock-deadline-ms: this caller may not ask for {least}; "
                    f"shortest_deadline_s in {_table(rights)} allows it.",
                )
            deadline_s = hints.deadline_s
        if hints.tenant is not None and not rights.may_name_tenant:
            raise Declined(
                403,
                "tenant_not_allowed",
                "x-penstock-tenant: this caller may not name a tenant; "
                f"may_name_tenant = true in {_table(rights)} allows it.",
            )
        if hints.tokens is not None and not rights.may_state_tokens:
            raise Declined(
                403,
                "tokens_not_allowed",
                "x-penstock-tokens: this caller may not state how long its replies will be; "
                f"may_state_tokens = true in {_table(rights)} allows it.",
            )
        own_tenant = rights.name if isinstance(rights, Key) else ""
        return Treatment(name, deadline_s, hints.tenant or own_tenant)

    def _asked_class(self, rights: Caller, asked: str, own: str) -> str:
        rank = self._rank.get(asked)
        if rank is None:
            raise Declined(
                400,
                "unknown_class",
                f"x-penstock-class: there is no such class; there are {', '.join(self._rank)}.",
            )
        if rank < self._rank[own] and not {asked, "*"} & set(rights.may_ask):
            raise Declined(
                403,
                "class_not_allowed",
                f"x-penstock-class: this caller may not ask for {asked}, only for {own} or a "
                f"class listed after it; may_ask in {_table(rights)} allows it.",
            )
        return asked


def _table(rights: Caller) -> str:
    """Return where the configuration states them, for people."""
    return f"the [[keys]] table named {rights.name}" if isinstance(rights, Key) else "[anonymous]"
