"""One upstream as the relay uses it: connections, and what of a request's head is fixed."""

import logging

from penstock.proxy.config.models import Upstream
from penstock.proxy.config.secret import Secret
from penstock.proxy.rename import renamed
from penstock.proxy.routing import MOST_NAMES, Patterns, patterns
from penstock.proxy.upstream.address import Address
from penstock.proxy.upstream.errors import DialError
from penstock.proxy.upstream.forward_proxy import ForwardProxy
from penstock.proxy.upstream.pool import Answer, Patience, Pool
from penstock.wire.endpoint import Vendor

logger = logging.getLogger("penstock.proxy")


class Link:
    """The way to one upstream.

    Attributes:
        name: as in the configuration.
        vendor: whose API it speaks.
        serves: patterns of the models that it serves.
        wants_caller_key: whether the caller's credentials go along.
        denying: True while its last word was that it does not accept what we configured for it.

    """

    def __init__(
        self, table: Upstream, key: Secret | None, through: ForwardProxy | None = None
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
        self.wants_caller_key = table.key_from == "caller"
        address = Address.parse(table.base_url)
        self._pool = Pool(
            address,
            Patience(
                table.connect_timeout_s,
                table.first_byte_timeout_s,
                table.idle_timeout_s,
                table.keep_alive_s,
            ),
            through=through,
        )
        relayed = through is not None and not address.tls  # the proxy reads the whole URL
        self._prefix = b"http://" * relayed + address.host_header * relayed + address.prefix
        fixed = b" HTTP/1.1\r\nhost: " + address.host_header + b"\r\naccept-encoding: identity\r\n"
        self._fixed = fixed + _key_line(self.vendor, table.key_header, key)
        if through is not None and relayed:
            self._fixed += through.authorization

    def __repr__(self) -> str:
        return f"Link({self.name!r})"

    @property
    def open_connections(self) -> int:
        """How many connections are open, idle ones included."""
        return self._pool.open_connections

    async def send(self, method: bytes, target: bytes, headers: bytes, body: bytes) -> Answer:
        """Send a request and wait for the answer's headers.

        Args:
            method: in upper case.
            target: path after the base URL, with its query.
            headers: the caller's, ready for the wire.
            body: as the caller sent it; its model is renamed where this upstream has other names.

        Raises:
            UpstreamError: no connection came about, or it broke, fell silent or spoke no HTTP.

        """
        if self._rename and body:
            body = renamed(body, self._rename)
        parts = [method, b" ", self._prefix, target, self._fixed, headers]
        if body or method == b"POST":
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n")
        try:
            answer = await self._pool.send(b"".join(parts), body)
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
        """Say whether another upstream has served a model that this one denied."""
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

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


def _key_line(vendor: Vendor, header: str | None, key: Secret | None) -> bytes:
    if key is None:
        return b""
    if header is None:
        header = "x-api-key" if vendor is Vendor.ANTHROPIC else "authorization"
    scheme = b"Bearer " if header == "authorization" else b""
    return header.encode("ascii") + b": " + scheme + key.reveal().encode("ascii") + b"\r\n"
