"""Serves an ASGI application over HTTP/1.1, by aiohttp, within stated bounds.

The sidecar and the mock provider share it. aiohttp reads HTTP: it ignores an `Upgrade` that nobody
takes up (RFC 9110, section 7.8), answers pipelined requests in their order, and cancels a request
when its caller goes away, so that cancellation is all that an application needs to know of it. A
caller that closes its sending side counts as gone, as with nginx: TCP cannot tell the two apart.
"""

from penstock.listener.connections import HEADS_AT_ONCE, Bounds
from penstock.listener.listener import Listener, bind, connection_limit

__all__ = ["HEADS_AT_ONCE", "Bounds", "Listener", "bind", "connection_limit"]
