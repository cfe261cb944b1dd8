"""How a request's body comes in: how long it may take, how large it may be, what is held in all."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from penstock.asgi import Receive
from penstock.proxy.declined import Declined
from penstock.proxy.headers import Head
from penstock.wire.encoding import EncodingError, is_plain, unpacked

ONES_PART, ONES_WHOLE = 3, 4
"""One caller may hold three quarters of what the others leave, so that room is left for whoever
comes next; two who take all they may hold six sevenths. Its only body may be larger: no wait would
make room for it."""

STEP_BYTES, RESERVE = 1 << 20, 64 << 20
"""So much must be free after each MB of a large body: for reading it, for numpy's products and for
libuv's small things. OpenBLAS and libuv end the process where they get no memory."""


@dataclass(slots=True)  # not frozen: one is made a request, and freezing is most of the cost
class Body:
    """A request's body.

    Attributes:
        sent: as the caller sent it.
        plain: without its content encoding.
        packed: whether it has one.

    """

    sent: bytes
    plain: bytes
    packed: bool = False


class Held:
    """What one request holds.

    Attributes:
        account: its caller's; empty where the call names none.
        size_bytes: how much it holds.

    """

    __slots__ = ("_coming_bytes", "_room", "account", "size_bytes")

    def __init__(self, room: "BodyRoom", account: str) -> None:
        """Hold nothing yet."""
        self._room = room
        self.account = account
        self._coming_bytes = 0
        self.size_bytes = 0

    def has_come(self) -> None:
        """Note that the body is whole."""
        self._room.coming.give_back(self.account, self._coming_bytes)
        self._coming_bytes = 0

    def take(self, size_bytes: int, *, coming: bool = False) -> None:
        """Hold so many bytes more; `coming` says that the body has not come whole.

        Raises:
            Declined: 503, too many are held already; 429, too many of this caller.

        """
        if coming:
            self._room.coming.take(self.account, size_bytes, self._coming_bytes)
            self._coming_bytes += size_bytes
        self._room.all.take(self.account, size_bytes, self.size_bytes)
        self.size_bytes += size_bytes

    def handed_over(self) -> "Held":
        """Return who holds it from now on."""
        other = Held(self._room, self.account)
        other.size_bytes, self.size_bytes = self.size_bytes, 0
        return other

    def give_back(self) -> None:
        """Hold nothing any more."""
        self.has_come()
        self._room.all.give_back(self.account, self.size_bytes)
        self.size_bytes = 0


class BodyRoom:
    """Counts the bytes of all requests.

    Bodies that are still coming have half of the room: whoever begins large ones and goes no
    further keeps out nobody whose body comes at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Allow so many."""
        self.all, self.coming = _Shared(), _Shared()
        self.allow(limit_bytes)

    def allow(self, limit_bytes: int) -> None:
        """Allow so many from now on; what is held stays."""
        self.all.limit_bytes, self.coming.limit_bytes = limit_bytes, limit_bytes // 2

    @property
    def used_bytes(self) -> int:
        """How many are held."""
        return self.all.used_bytes

    def unread_bytes(self) -> int:
        """Return how many bytes of replies may lie unread: as many as bodies leave.

        A quarter of the room at least, or where bodies fill it any reply under way would be cut.
        """
        room = self.all
        return max(room.limit_bytes // 4, room.limit_bytes - room.used_bytes)


class _Shared:
    """Room that callers share, none of whom can take it all.

    Source:
        Choudhury & Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
        IEEE/ACM Transactions on Networking 6(2), 1998, with a caller in place of a queue.

    """

    def __init__(self) -> None:
        self.limit_bytes = 0
        self._of: dict[str, int] = {}
        self.used_bytes = 0

    def take(self, whose: str, size_bytes: int, beside_bytes: int) -> None:
        """Take so many for a body that holds some already."""
        if self.used_bytes + size_bytes > self.limit_bytes:
            raise _no_room()
        if whose:
            own_bytes = self._of.get(whose, 0)
            left_bytes = self.limit_bytes - self.used_bytes + own_bytes
            too_much = (own_bytes + size_bytes) * ONES_WHOLE > left_bytes * ONES_PART
            if too_much and own_bytes > beside_bytes:
                raise _too_much()
            self._of[whose] = own_bytes + size_bytes
        self.used_bytes += size_bytes

    def give_back(self, whose: str, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        if whose in self._of:
            self._of[whose] -= size_bytes
            if not self._of[whose]:
                del self._of[whose]


def _no_room() -> Declined:
    return Declined(
        503,
        "too_many_bytes_waiting",
        "The bodies of other requests fill what server.max_held_bytes allows, or those that are "
        "still coming half of it: send it again in a while.",
        headers={"retry-after": "1"},
    )


def _too_much() -> Declined:
    return Declined(
        429,
        "too_many_bytes_of_caller",
        "The bodies of your other requests, waiting or under way, hold three quarters of what "
        "others leave of server.max_held_bytes, or those that are still coming of half of it: "
        "send it again when some have ended.",
        headers={"retry-after": "1"},
    )


class Patience:
    """Cancels tasks that take too long, by one look a second over all of them.

    A timer for every request would cost 3 us on each; being up to a second late is no matter
    where the span is a minute.
    """

    def __init__(self, span_s: float) -> None:
        """Allow each task so many seconds."""
        self.span_s = span_s
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: "asyncio.Task[Any]") -> None:
        """Start a task's span."""
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(1.0, self._look, loop)

    def end(self, task: "asyncio.Task[Any]") -> bool:
        """End a task's span; True if it was cancelled for being late."""
        self._since.pop(task, None)
        if task in self._late:
            self._late.discard(task)
            return True
        return False

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        latest = loop.time() - self.span_s
        for task in [task for task, since in self._since.items() if since <= latest]:
            del self._since[task]
            self._late.add(task)
            task.cancel()
        if self._since:
            self._timer = loop.call_later(1.0, self._look, loop)


class BodyReader:
    """Takes requests' bodies in, within the bounds of `[server]`.

    Attributes:
        max_bytes: of one body.
        patience: cancels what takes too long to come.

    """

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        """Begin with these bounds; both may change."""
        self.max_bytes = max_bytes
        self.patience = Patience(timeout_s)
        # A thread: 32 MB take a tenth of a second, for which nobody else shall wait. One: what it
        # makes is not counted before it is whole.
        self._unpacker = ThreadPoolExecutor(1, thread_name_prefix="penstock-unpack")

    async def read(self, head: Head, receive: Receive, held: Held) -> Body:
        """Return a request's body.

        Args:
            head: the request's headers.
            receive: brings it.
            held: counts its bytes.

        Raises:
            Declined: with the status that fits.

        """
        sent = await self._received(head, receive, held)
        encoding = head.get(b"content-encoding")
        if encoding is None:
            return Body(sent, sent)
        try:
            unpack = partial(
                unpacked, sent, encoding.decode("latin-1"), at_most_bytes=self.max_bytes
            )
            plain = await asyncio.get_running_loop().run_in_executor(self._unpacker, unpack)
        except EncodingError as error:
            if error.too_large:
                raise self._too_large() from None
            if is_plain(sent):
                return Body(sent, sent)
            status, code = (415, "encoding_not_taken") if error.unknown else (400, "bad_encoding")
            raise Declined(
                status, code, f"{error} Or send the JSON as it is, without content-encoding."
            ) from None
        held.take(len(plain))
        return Body(sent, plain, packed=True)

    async def _received(self, head: Head, receive: Receive, held: Held) -> bytes:
        stated = head.get(b"content-length")
        # The server has checked its form: digits only.
        if stated is not None and int(stated) > self.max_bytes:
            raise self._too_large()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI application runs in a task: which server is this?")
        self.patience.begin(task)
        try:
            body = await self._pieces(receive, held)
        except ValueError:
            raise Declined(400, "invalid_body", "The request's body is framed wrongly.") from None
        except asyncio.CancelledError:
            if not self.patience.end(task):
                raise
            task.uncancel()
            text = "The request's body did not arrive in time."
            raise Declined(408, "body_timeout", text) from None
        finally:
            self.patience.end(task)
        return body

    async def _pieces(self, receive: Receive, held: Held) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            piece: bytes = message["body"]
            size += len(piece)
            if size > self.max_bytes:
                raise self._too_large()
            whole = not message["more_body"]
            if whole:
                held.has_come()
            held.take(len(piece), coming=not whole)
            if whole and not pieces:
                return piece
            pieces.append(piece)
            if whole:
                return b"".join(pieces)

    def _too_large(self) -> Declined:
        return Declined(
            413,
            "body_too_large",
            f"The request's body is larger than {self.max_bytes} bytes, "
            "which server.max_body_bytes allows.",
        )
