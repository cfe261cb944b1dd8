"""Where an upstream lives, taken apart once at start, and the HTTP proxy on the way there."""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

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


_PORT = 3128  # what proxies listen on where nobody says otherwise: Squid's
NONE = "none"


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """Where connections are dialled instead of the upstream itself.

    Attributes:
        host: name or address of the proxy.
        port: its TCP port.
        authorization: what the Proxy-Authorization header says; holds a password. Empty: none.

    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> "ForwardProxy":
        """Take a proxy's URL apart; without a scheme it is taken for http.

        Raises:
            ValueError: not an http proxy with a host. The text does not repeat the URL.

        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http":
            raise ValueError("must be an http:// proxy: SOCKS and TLS to the proxy are not spoken")
        if not parts.hostname or parts.query or parts.fragment or parts.path not in ("", "/"):
            raise ValueError("must be a proxy's http://host:port")
        if not parts.hostname.isascii() or any(c.isspace() for c in parts.hostname):
            raise ValueError("must hold a host in plain ASCII without spaces")
        check_host(parts.hostname)
        port = parts.port  # raises ValueError for one that is no port
        authorization = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        return cls(parts.hostname, _PORT if port is None else port, authorization)


def configured(url: str) -> ForwardProxy | None:
    """Return the proxy that a configuration file names; None for `none`.

    Raises:
        ValueError: it cannot be used, or holds a password, which a file must not.

    """
    if url == NONE:
        return None
    if "@" in url:
        raise ValueError(
            "must not hold a user name or password: put the whole URL into HTTPS_PROXY and leave "
            "this key out"
        )
    return ForwardProxy.parse(url)


def from_environment(address: Address, env: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that names a proxy for this upstream, and its value; or two blanks.

    HTTPS_PROXY or HTTP_PROXY by the upstream's scheme, else ALL_PROXY; lower case goes first.
    NO_PROXY lists who is dialled directly; loopback always is.
    """
    for name in ("HTTPS_PROXY" if address.tls else "HTTP_PROXY", "ALL_PROXY"):
        for spelt in (name.lower(), name):
            value = env.get(spelt, "").strip()
            if value:
                return ("", "") if _direct(address, env) else (spelt, value)
    return "", ""


def _direct(address: Address, env: Mapping[str, str]) -> bool:
    ip = _ip(address.host)
    if address.host == "localhost" or (ip is not None and ip.is_loopback):
        return True
    excepted = env.get("no_proxy", "") or env.get("NO_PROXY", "")
    return any(
        _covers(entry.strip().lower(), address, ip)
        for entry in excepted.split(",")
        if entry.strip()
    )


def _covers(entry: str, address: Address, ip: IPv4Address | IPv6Address | None) -> bool:
    """Return whether an entry of NO_PROXY means this upstream: *, a domain, an address or a net.

    Nobody has specified the variable; this is what curl and Go agree on, and a port may follow.
    """
    if entry == "*":
        return True
    if ip is not None:
        try:
            return ip in ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass  # no address: a name, perhaps with a port
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit():
        if int(port) != address.port:
            return False
        entry = name.strip("[]")
    domain = entry.lstrip(".")
    return address.host == domain or (ip is None and address.host.endswith("." + domain))


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
