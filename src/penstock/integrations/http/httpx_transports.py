"""The transports for httpx."""

import httpx

from penstock.integrations.http.transport import (
    AsyncFollowed,
    AsyncScheduling,
    SyncFollowed,
    SyncScheduling,
)


class _AsyncBody(AsyncFollowed, httpx.AsyncByteStream):
    http = httpx


class _SyncBody(SyncFollowed, httpx.SyncByteStream):
    http = httpx


class AsyncTransport(AsyncScheduling, httpx.AsyncBaseTransport):
    """Schedules every model call that an `httpx.AsyncClient` sends; the rest passes through."""

    http = httpx
    stream_class = _AsyncBody


class Transport(SyncScheduling, httpx.BaseTransport):
    """Schedules every model call that an `httpx.Client` sends; the rest passes through."""

    http = httpx
    stream_class = _SyncBody
