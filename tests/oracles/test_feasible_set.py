"""Feasible-set ordering against its definition, worked out by looking at everything."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.ticket import Ticket, ticket_of
from penstock.policies.ordering.feasible_set import FeasibleSet
from tests.core.story import request


@dataclass
class Plain:
    """The definition, without heaps: O(n) a choice."""

    price: float
    patience: int
    waiting: list[Ticket] = field(default_factory=list)
    since_oldest: int = 0

    def head(self, now: float) -> Ticket | None:
        oldest = min(self.waiting, key=lambda t: t.request.id, default=None)
        if self.since_oldest >= self.patience - 1:
            return oldest
        feasible = [t for t in self.waiting if t.latest_start >= now]
        if feasible:
            return min(feasible, key=lambda t: (self.score(t), t.request.id))
        return min(self.waiting, key=lambda t: (t.service_p50_s, t.request.id), default=None)

    def score(self, ticket: Ticket) -> float:
        return ticket.latest_start + self.price * ticket.service_p50_s

    def take(self, ticket: Ticket) -> None:
        oldest = min(self.waiting, key=lambda t: t.request.id)
        self.waiting.remove(ticket)
        self.since_oldest = 0 if ticket is oldest else self.since_oldest + 1


def ticket(id_: int, slack_s: float, p50_s: float, p90_s: float, now: float) -> Ticket:
    return ticket_of(request(id_, at=now, deadline=now + slack_s), p50_s, p90_s)


steps = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "serve", "leave", "return"]),
        st.sampled_from([0.0, 0.0, 0.5, 3.0]),
        st.sampled_from([0.5, 2.0, 4.0, 30.0, float("inf")]),
        st.sampled_from([0.1, 1.0, 5.0]),
        st.integers(0, 10),
    ),
    max_size=80,
)


@given(steps, st.sampled_from([0.0, 1.0, 7.5]), st.integers(2, 6))
def test_it_chooses_what_the_definition_chooses(
    story: list[tuple[str, float, float, float, int]], price: float, patience: int
) -> None:
    queue, plain = FeasibleSet(price=price, patience=patience), Plain(price, patience)
    now, id_ = 0.0, 0
    gone: list[Ticket] = []
    for what, gap_s, slack_s, service_s, which in story:
        now += gap_s
        if what == "arrive":
            id_ += 1
            one = ticket(id_, slack_s, service_s, 2 * service_s, now)
            queue.push(one, now=now)
            plain.waiting.append(one)
        elif what == "return" and gone:  # a retry: the same ticket again, with its old place
            one = gone.pop(which % len(gone))
            queue.push(one, now=now)
            plain.waiting.append(one)
        elif what == "leave" and plain.waiting:
            one = plain.waiting[which % len(plain.waiting)]
            queue.take(one, now=now)
            plain.take(one)
        elif what == "serve" and plain.waiting:
            head = queue.head(now=now)
            assert head is plain.head(now)
            assert head is not None
            queue.take(head, now=now)
            plain.take(head)
            gone.append(head)
        assert len(queue) == len(plain.waiting)
        assert queue.head(now=now) is plain.head(now)


@given(
    patience=st.integers(2, 7),
    older=st.integers(0, 6),
    slacks=st.lists(st.sampled_from([0.0, 1.0, 5.0, 50.0]), min_size=80, max_size=80),
)
def test_nobody_waits_for_more_than_patience_times_its_rank_takings(
    patience: int, older: int, slacks: list[float]
) -> None:
    """The stated bound: with k older ones before it, it is taken as number patience x (k + 1)."""
    queue = FeasibleSet(patience=patience)
    for id_ in range(older + 1):  # hopeless and long: everybody's last choice
        queue.push(ticket(id_, -10.0, 9.0 + id_, 9.0 + id_, 0.0), now=0.0)
    takings = 0
    for n, slack_s in enumerate(slacks):  # a stream of better ones without end
        queue.push(ticket(100 + n, 1000.0 + slack_s, 0.1, 0.1, 0.0), now=0.0)
        queue.push(ticket(1000 + n, 1000.0 - slack_s, 0.1, 0.1, 0.0), now=0.0)
        head = queue.head(now=0.0)
        assert head is not None
        queue.take(head, now=0.0)
        takings += 1
        if head.request.id == older:
            break

    assert takings <= patience * (older + 1)


def test_the_bound_is_reached() -> None:
    queue = FeasibleSet(patience=4)
    for id_ in range(2):
        queue.push(ticket(id_, -10.0, 9.0, 9.0, 0.0), now=0.0)
    order = []
    for n in range(8):
        queue.push(ticket(100 + n, 1000.0, 0.1, 0.1, 0.0), now=0.0)
        head = queue.head(now=0.0)
        assert head is not None
        order.append(head.request.id)
        queue.take(head, now=0.0)

    assert order == [100, 101, 102, 0, 103, 104, 105, 1]


@given(st.integers(1, 30))
def test_serving_empties_it_whatever_becomes_hopeless(n: int) -> None:
    queue = FeasibleSet(patience=5)
    for id_ in range(n):
        queue.push(ticket(id_, 1.0 + id_ % 5, 0.5, 0.9, 0.0), now=0.0)
    taken = set()
    for k in range(n):
        head = queue.head(now=k * 0.7)
        assert head is not None
        queue.take(head, now=k * 0.7)
        taken.add(head.request.id)

    assert taken == set(range(n))
    assert queue.head(now=99.0) is None
