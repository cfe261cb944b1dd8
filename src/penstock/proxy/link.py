"""One upstream as the relay uses it: connections, and what of a request's head is fixed."""

from penstock.integrations.wire.endpoint import Vendor
from penstock.proxy.config.models import Upstream
from penstock.proxy.config.secret import Secret
from penstock.proxy.routing import Patterns, patterns
from penstock.proxy.upstream.address import Address
from penstock.proxy.upstream.pool import Answer, Patience, Pool


class Link:
    """The way to one upstream.

    Attributes:
        name: as in the configuration.
        vendor: whose API it speaks.
        serves: patterns of the models that it serves.
        wants_caller_key: whether the caller's credentials go along.

    """

    def __init__(self, table: Upstream, key: Secret | None) -> None:
        """Prepare; nothing is dialled."""
        self.name = table.name
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
        )
        self._prefix = address.prefix
        fixed = b" HTTP/1.1\r\nhost: " + address.host_header + b"\r\naccept-encoding: identity\r\n"
        self._fixed = fixed + _key_line(self.vendor, key)

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
            body: as the caller sent it.

        Raises:
            UpstreamError: no connection came about, or it broke, fell silent or spoke no HTTP.

        """
        parts = [method, b" ", self._prefix, target, self._fixed, headers]
        if body or method == b"POST":
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n")
        return await self._pool.send(b"".join(parts), body)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


def _key_line(vendor: Vendor, key: Secret | None) -> bytes:
    if key is None:
        return b""
    name = b"x-api-key: " if vendor is Vendor.ANTHROPIC else b"authorization: Bearer "
    return name + key.reveal().encode("ascii") + b"\r\n"
