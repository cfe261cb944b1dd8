"""One upstream as the relay uses it: its key, its names for models, and what it has denied."""

import asyncio
import logging
import re
from collections.abc import AsyncIterable

from penstock.proxy.config.forward_proxy import Address, ForwardProxy
from penstock.proxy.config.models import UpstreamTable
from penstock.proxy.declined import DialError
from penstock.proxy.routing import MOST_NAMES, Patterns, patterns, renamed
from penstock.proxy.upstream.http import HttpClient, Timeouts, UpstreamAnswer
from penstock.wire.endpoint import Vendor
from penstock.wire.secret import Secret

logger = logging.getLogger("penstock.proxy")

_DATE = re.compile(r"(?<=[?&])api-version=\d{4}-\d\d-\d\d(?:-preview)?(?:&|\Z)")
"""What Azure's SDK adds; Azure wants it at paths with a deployment, and refuses it elsewhere."""
LOOK_S = 1.0


class UpstreamClient:
    """Sends requests to one upstream.

    Attributes:
        name: as in the configuration.
        host, port: where it is reached, behind any proxy.
        vendor: whose API it speaks.
        serves: patterns of the models that it serves.
        wants_caller_key: whether the caller's credentials go along.
        relay_others: patterns of further paths that it takes; None for all with a caller's key.
        denying: True while its last word was that it does not accept what we configured for it.

    """

    def __init__(
        self, table: UpstreamTable, key: Secret | None, through: ForwardProxy | None = None
    ) -> None:
        """Prepare; nothing is dialled."""
        self.name = table.name
        self._rename = table.rename or {}
        self._trouble = ""
        self._complaints: set[str] = set()
        self.denying = False
        self._outdone: set[str] = set()
        self.vendor = Vendor(table.dialect)
        self.serves: Patterns = patterns(table.dialect, table.models)
        self.relay_others = table.relay_others
        self.wants_caller_key = table.key_from == "caller"
        timeouts = Timeouts(
            table.connect_timeout_s,
            table.first_byte_timeout_s,
            table.idle_timeout_s,
            table.keep_alive_s,
        )
        self._dated = "/deployments/" in table.base_url
        address = Address.parse(table.base_url)
        self.host, self.port = address.host, address.port
        self._http = HttpClient(address, timeouts, through)
        self._dial_s = table.connect_timeout_s
        self._key_header_name = table.key_header
        self.use_key(key)

    def __repr__(self) -> str:
        return f"UpstreamClient({self.name!r})"

    def use_key(self, key: Secret | None) -> None:
        """Send this key from the next request on."""
        self._key = _key_header(self.vendor, self._key_header_name, key)
        self._secret = key

    def hidden(self, text: bytes) -> bytes:
        """Return what the upstream says, without the key that was sent to it."""
        return text if self._secret is None else self._secret.hidden_in(text)

    @property
    def open_connections(self) -> int:
        """How many connections are open, idle ones included."""
        return self._http.open_connections

    async def send(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterable[bytes],
        *,
        fresh: bool = False,
    ) -> UpstreamAnswer:
        """Send a request and wait for the answer's headers.

        Args:
            method: in upper case.
            target: path after the base URL, with its query.
            headers: the caller's, as far as they travel on.
            body: as the caller sent it; its model is renamed where this upstream has other names,
                unless it comes piece by piece.
            fresh: whether no connection will do that has served others.

        Raises:
            UpstreamError: no connection came about, or it broke, fell silent or spoke no HTTP.

        """
        if self._rename and isinstance(body, bytes) and body:
            body = renamed(body, self._rename)
        if not self._dated and "api-version=" in target:
            target = _DATE.sub("", target).rstrip("?&")
        try:
            answer = await self._http.send(method, target, headers + self._key, body, fresh=fresh)
        except DialError as error:
            self._unreachable(str(error))
            raise
        if self._trouble:
            self._trouble = ""
            logger.info("upstream %s is reached again", self.name)
        return answer

    def _unreachable(self, reason: str) -> None:
        """Log why, once a reason: callers are told no more than that it is so."""
        if reason != self._trouble:
            self._trouble = reason
            logger.warning("upstream %s: %s", self.name, reason)

    def outdone_at(self, model: str) -> bool:
        """Return whether another upstream has served a model that this one denied."""
        return model in self._outdone

    def outdone(self, model: str) -> None:
        """Note that another upstream has served a model that this one denied."""
        if len(self._outdone) < MOST_NAMES:
            self._outdone.add(model)

    def served(self, model: str) -> None:
        """Note a reply: what it denied before is forgotten."""
        self.denying = False
        if self._outdone:
            self._outdone.discard(model)

    def complain(self, of: str) -> None:
        """Log what is wrong with its answers, once for each reason."""
        if of not in self._complaints:
            self._complaints.add(of)
            logger.warning("upstream %s %s", self.name, of)

    def name_of(self, model: str) -> str:
        """Return the upstream's own name of a model."""
        return self._rename.get(model, model)

    def renames(self, model: str) -> bool:
        """Return whether the body is changed for this upstream."""
        return model in self._rename

    async def close_when_unused(self) -> None:
        """Let what is under way end, then close; nobody sends anything new here any more."""
        unused_s = 0.0
        while unused_s <= self._dial_s + LOOK_S:  # a connection may still be dialled
            await asyncio.sleep(LOOK_S)
            unused_s = 0.0 if self.open_connections else unused_s + LOOK_S
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()


def _key_header(vendor: Vendor, header: str | None, key: Secret | None) -> list[tuple[str, str]]:
    if key is None:
        return []
    if header is None:
        header = "x-api-key" if vendor is Vendor.ANTHROPIC else "authorization"
    return [(header, ("Bearer " if header == "authorization" else "") + key.reveal())]
