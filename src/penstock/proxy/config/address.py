"""Where an upstream lives, taken apart once at start."""

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from penstock.calls.endpoint import refuse_endpoint_in

_NEEDS_V1 = ("api.openai.com", "api.anthropic.com")


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL taken apart.

    Attributes:
        host: name or address to dial.
        port: TCP port to dial.
        tls: True for https.
        base_url: what stands in front of the API's own paths, without a slash at the end.

    """

    host: str
    port: int
    tls: bool
    base_url: str

    @classmethod
    def parse(cls, base_url: str) -> "Address":
        """Take a base URL apart.

        Raises:
            ValueError: not an http(s) URL with a host, one with a part that cannot be kept
                (user information, query, fragment), or one that surely leads nowhere.

        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL with a host")
        if parts.username or parts.password:
            raise ValueError("must not hold a user name or password: use api_key_env")
        if parts.query or parts.fragment:
            raise ValueError("must end with its path: a query or fragment is not kept")
        if not base_url.isascii() or any(c.isspace() for c in base_url):
            raise ValueError("must be plain ASCII without spaces (percent-encode the rest)")
        check_host(parts.hostname)
        if parts.port == 0:
            raise ValueError("must hold a port from 1 to 65535: nothing listens on port 0")
        _check_path(base_url, parts.hostname, parts.path.rstrip("/"))
        tls = parts.scheme == "https"
        usual = 443 if tls else 80
        port = parts.port or usual
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        shown = host if port == usual else f"{host}:{port}"
        return cls(parts.hostname, port, tls, f"{parts.scheme}://{shown}{parts.path.rstrip('/')}")

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a verifying TLS context that offers HTTP/1.1 only, or None for plain http."""
        if not self.tls:
            return None
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context


def check_host(host: str) -> None:
    """Refuse a name that cannot be looked up.

    Raises:
        ValueError: one of its labels is empty or longer than 63 characters.

    """
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(
            f"must hold a host whose labels are 1 to 63 characters: is a dot too many in {host!r}?"
        ) from None


def _check_path(base_url: str, host: str, path: str) -> None:
    """Refuse what the provider would answer with 404, whatever is asked of it."""
    if host in _NEEDS_V1 and not path:
        raise ValueError(f"must hold the API's path: did you mean {base_url.rstrip('/')}/v1?")
    refuse_endpoint_in(base_url)
