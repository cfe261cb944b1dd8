"""A relay of aiohttp and nothing else: the floor of what the sidecar, which stands on it, can cost.

python benchmarks/bare_relay.py PORT UPSTREAM_PORT

It has penstock's libraries and loop, reads a body whole, relays the headers, and passes the reply
on as it comes: no queue, no parsing, no usage, no metrics.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

NOT_UP = frozenset((b"host", b"connection", b"content-length", b"accept-encoding"))
NOT_DOWN = frozenset((b"connection", b"transfer-encoding", b"content-length"))


async def serve(port: int, upstream: int) -> None:
    """Relay until the process ends."""
    base = f"http://127.0.0.1:{upstream}"
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_read=600),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("accept", "content-type", "user-agent"),
    )

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        headers = [
            (k.decode(), v.decode("latin-1"))
            for k, v in request.raw_headers
            if k.lower() not in NOT_UP
        ]
        url = URL(base + request.path, encoded=True)
        async with session.request("POST", url, headers=headers, data=body) as answer:
            kept = [
                (k.decode(), v.decode("latin-1"))
                for k, v in answer.raw_headers
                if k.lower() not in NOT_DOWN
            ]
            if "content-length" in answer.headers:
                whole = await answer.content.read()
                return web.Response(status=answer.status, headers=kept, body=whole)
            reply = web.StreamResponse(status=answer.status, headers=kept)
            await reply.prepare(request)
            while data := await answer.content.readany():
                await reply.write(data)
            await reply.write_eof()
            return reply

    server = web.Server(handle, access_log=None, handler_cancellation=True)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    await listening.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
