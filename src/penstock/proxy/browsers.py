"""What only browsers send: foreign pages' calls are refused, listed origins may read (CORS).

A page of any site can make its reader's browser call penstock (with `Origin`, or by a GET of which
only `Sec-Fetch-Site` tells), and a site whose name is made to point at 127.0.0.1 can read the
answers (DNS rebinding, with its name in `Host`). Callers that are no browsers send neither, and in
`Host` what they were configured to call.
"""

import ipaddress
import re
from collections.abc import Awaitable, Collection, Iterable
from typing import cast

from penstock.asgi import Application, Receive, Scope, Send
from penstock.core.settings import fits
from penstock.proxy.headers import Header, send_answer
from penstock.wire.endpoint import Vendor
from penstock.wire.errors import error_answer

MOST_REMEMBERED = 64
_FOREIGN = (b"cross-site", b"same-site")
"""What browsers say of a page of another origin; links may lead from there to the admin pages."""
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]{1,253}))(?::[0-9]*)?\Z")
CORS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PREFLIGHT_S = 600
"""How long a browser may remember that it may ask: Chromium forgets after 7,200 s."""


class BrowserGuard:
    """Passes on requests whose `Host` and `Origin` are allowed.

    Args:
        application: who serves what passes.
        table: the configuration's table, for the refusal's text.
        listens_on: the host that the listener was given.

    """

    def __init__(
        self,
        application: Application,
        table: str,
        listens_on: str,
        hosts: Iterable[str],
        origins: Iterable[str],
    ) -> None:
        """Allow IP addresses, localhost, the listener's own host, and these."""
        self.application = application
        self._table = table
        self._own = listens_on.lower()
        self.allow(hosts, origins)

    def allow(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """Allow these from now on, and no longer those of before."""
        self._hosts = tuple(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().encode() for origin in origins)
        self._known: set[bytes] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return what serves or refuses one request; no frame of its own waits for it."""
        wrong = self.refusal(scope["headers"])
        if wrong is None:
            return self.application(scope, receive, send)
        return send_answer(send, error_answer(Vendor.OPENAI, *wrong))

    def refusal(self, headers: Iterable[Header]) -> tuple[int, str, str] | None:
        """Return status, code and text for what is not allowed; None for what passes."""
        host, origin, site, mode = b"", None, b"", b""
        for name, value in headers:
            if name == b"host":
                host = value
                if value not in self._known and not self._is_ours(value):
                    return (
                        421,
                        "unknown_host",
                        (
                            f"This host name is not penstock's. Its operator allows it by "
                            f"{self._line(value)} in [{self._table}] of the configuration; an IP "
                            "address and localhost are always allowed."
                        ),
                    )
            elif name == b"origin":
                origin = value.lower() if origin is None else b"two"
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-mode":
                mode = value
        if origin is None and site in _FOREIGN and (self._table == "server" or mode != b"navigate"):
            origin = site  # a picture, a script, a frame: GETs that bring no Origin
        if (
            origin is None
            or origin in self._origins
            or origin
            in (
                b"http://" + host.lower(),
                b"https://" + host.lower(),
            )
        ):
            return None
        return (
            403,
            "unknown_origin",
            (
                "Web pages of this origin may not call penstock: "
                f"{self._table}.origins in its configuration would allow them."
            ),
        )

    @staticmethod
    def _line(host: bytes) -> str:
        """Return what the configuration has to say for this name to be allowed."""
        return f'hosts = ["{_without_port(host.decode("latin-1").lower()) or "NAME"}"]'

    def _is_ours(self, value: bytes) -> bool:
        name = _without_port(value.decode("latin-1").lower())
        ours = _is_local(name) or name == self._own or any(fits(h, name) for h in self._hosts)
        if ours and len(self._known) < MOST_REMEMBERED:
            self._known.add(value)
        return ours


def _without_port(host: str) -> str:
    """Return the name or address in a Host header; empty if it is none.

    Whoever makes a URL of the header takes what is neither for a path (`a/healthz?.localhost`).
    """
    found = _HOST.match(host)
    return "" if found is None else found[1] or found[2]


def _is_local(name: str) -> bool:
    """Return whether nobody else can give this name an address: it is one, or localhost."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def readable_by(origins: Collection[str], application: Application) -> Application:
    """Return the application with CORS headers for these origins; itself if there are none."""
    if not origins:
        return application
    # Imported where it is asked for: most sidecars are called by no browser.
    from starlette.middleware.cors import CORSMiddleware

    middleware = CORSMiddleware(
        cast("CORSMiddleware", application),
        allow_origins=origins,
        allow_methods=CORS_METHODS,
        allow_headers=("*",),
        expose_headers=("*",),
        max_age=PREFLIGHT_S,
    )
    return cast("Application", middleware)
