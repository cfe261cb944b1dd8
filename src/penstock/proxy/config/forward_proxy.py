"""The HTTP proxy of a company, where upstreams are reached through one."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

from penstock.proxy.config.address import Address, check_host

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
