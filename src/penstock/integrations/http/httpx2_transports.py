"""The transports for httpx2."""

import httpx2

from penstock.integrations.http.transport import (
    AsyncFollowed,
    AsyncScheduling,
    SyncFollowed,
    SyncScheduling,
)


class _AsyncBody(AsyncFollowed, httpx2.AsyncByteStream):
    http = httpx2


class _SyncBody(SyncFollowed, httpx2.SyncByteStream):
    http = httpx2


class AsyncTransport(AsyncScheduling, httpx2.AsyncBaseTransport):
    """Schedules every model call that an `httpx2.AsyncClient` sends; the rest passes through."""

    http = httpx2
    stream_class = _AsyncBody


class Transport(SyncScheduling, httpx2.BaseTransport):
    """Schedules every model call that an `httpx2.Client` sends; the rest passes through."""

    http = httpx2
    stream_class = _SyncBody
