"""The lanes: which requests contend for which upstreams."""

from collections.abc import Callable, Iterable, Iterator

from penstock.core.lane import Lane
from penstock.core.model import Request
from penstock.core.nesting import Nesting
from penstock.core.policy import Allocator, OrderedQueue
from penstock.core.retry_budget import RetryBudget
from penstock.core.settings import Settings
from penstock.core.sticky import Stickiness
from penstock.core.upstream.ledger import Upstream
from penstock.errors import ProtocolError

MODELS_LIMIT = 4096


class Lanes:
    """One lane for each set of upstreams that serve the same models, made when first needed.

    Attributes:
        of_model: the lanes of models asked for so far, None where no upstream serves the model.
        of_upstream: the lanes that share an upstream, by its name.
        by_upstreams: all lanes, by the names of their upstreams.
        nesting: the calls that are made inside others.

    """

    def __init__(
        self,
        settings: Settings,
        upstreams: tuple[Upstream, ...],
        make_allocator: Callable[[], Allocator],
        make_queue: Callable[[], OrderedQueue],
    ) -> None:
        """Start with no lane."""
        self._settings = settings
        self._upstreams = upstreams
        self._make_allocator = make_allocator
        self._make_queue = make_queue
        self.of_model: dict[str, Lane | None] = {}
        self.of_upstream: dict[str, list[Lane]] = {u.name: [] for u in upstreams}
        self.by_upstreams: dict[tuple[str, ...], Lane] = {}
        self.nesting = Nesting(upstreams, self.of)

    def __iter__(self) -> Iterator[Lane]:
        """Walk the lanes in the order in which they were made."""
        return iter(self.by_upstreams.values())

    def upstream(self, name: str) -> Upstream:
        """Return the upstream of that name.

        Raises:
            ProtocolError: none has it.

        """
        for upstream in self._upstreams:
            if upstream.name == name:
                return upstream
        known = [upstream.name for upstream in self._upstreams]
        raise ProtocolError(f"upstream {name!r} is not configured: known are {sorted(known)}")

    def find(self, request: Request) -> Lane | None:
        """Return the lane of a request; None if no upstream serves its model."""
        model, only = request.model, request.upstream
        if only:
            return self._among(u for u in self._upstreams if u.name == only and u.serves(model))
        lane = self.of_model.get(model)
        if lane is None and model not in self.of_model:
            if len(self.of_model) >= MODELS_LIMIT:  # names are the callers'
                self.of_model.clear()
            lane = self._among(u for u in self._upstreams if u.serves(model))
            self.of_model[model] = lane
        return lane

    def _among(self, found: Iterable[Upstream]) -> Lane | None:
        serving = tuple(found)
        names = tuple(u.name for u in serving)
        if serving and names not in self.by_upstreams:
            self.by_upstreams[names] = self._new(serving)
        return self.by_upstreams.get(names)

    def of(self, request: Request) -> Lane:
        """Return the lane of a request that is known to have one."""
        lane = self.find(request)
        assert lane is not None  # only requests with a lane become tickets
        return lane

    def _new(self, serving: tuple[Upstream, ...]) -> Lane:
        lane = Lane(
            serving,
            self._make_allocator(),
            self._make_queue,
            RetryBudget(self._settings.retry_share, len(serving)),
            sticky=Stickiness() if self._settings.sticky else None,
            tenants={} if self._settings.tenant_turns else None,
        )
        lane.signals.window = sum(upstream.capacity.window for upstream in serving)
        for upstream in serving:
            upstream.has_peers = upstream.has_peers or len(serving) > 1
            self.of_upstream[upstream.name].append(lane)
        return lane

    def renew(self, lane: Lane) -> None:
        """Give a lane an allocator and queues that know nothing yet, and nobody in its signals."""
        lane.renew(self._make_allocator())
