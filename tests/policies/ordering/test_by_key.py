"""Waiting tickets by a key; what leaves from the middle leaves no trace."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.ticket import Ticket, ticket_of
from penstock.policies.ordering.by_key import HeapQueue, OldestFirst
from tests.core.story import request


def ticket(id_: int) -> Ticket:
    return ticket_of(request(id_), 1.0, 1.0)


def test_the_smallest_key_is_the_head_and_ties_end_in_the_sequence_number() -> None:
    queue = HeapQueue()
    queue.push(2.0, ticket(1))
    queue.push(1.0, ticket(3))
    queue.push(1.0, ticket(2))
    order = []
    while (head := queue.head()) is not None:
        order.append(head.request.id)
        queue.discard(head)

    assert order == [2, 3, 1]


def test_what_is_not_here_cannot_be_removed() -> None:
    assert not HeapQueue().discard(ticket(1))


def test_a_ticket_that_left_from_the_middle_may_come_back() -> None:
    queue = HeapQueue()
    first, second = ticket(1), ticket(2)
    queue.push(1.0, first)
    queue.push(2.0, second)
    queue.discard(second)
    queue.push(2.0, second)
    queue.discard(first)

    assert queue.head() is second
    queue.discard(second)
    assert queue.head() is None
    assert len(queue) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["push", "take", "drop"]), st.integers(0, 200)), max_size=600
    )
)
def test_it_agrees_with_sorting(steps: list[tuple[str, int]]) -> None:
    queue, plain = HeapQueue(), dict[int, tuple[float, Ticket]]()
    for what, number in steps:
        if what == "push" and number not in plain:
            one = ticket(number)
            plain[number] = (number % 7, one)
            queue.push(number % 7, one)
        elif what == "take" and plain:
            id_ = min(plain, key=lambda i: (plain[i][0], i))
            head = queue.head()
            assert head is plain[id_][1]
            queue.discard(head)
            del plain[id_]
        elif what == "drop":
            known = plain.pop(number, None)
            assert queue.discard(ticket(number) if known is None else known[1]) is (
                known is not None
            )
        assert len(queue) == len(plain)
    expected = min(plain, key=lambda i: (plain[i][0], i)) if plain else None
    head = queue.head()
    assert (head.request.id if head else None) == expected


def test_ten_thousand_that_left_from_the_middle_hold_no_memory() -> None:
    queue = HeapQueue()
    queue.push(0.0, ticket(0))
    for id_ in range(1, 10_001):
        one = ticket(id_)
        queue.push(1.0, one)
        queue.discard(one)

    assert len(queue._heap) < 100  # the heap itself: what is held is not to be seen from outside


def test_the_oldest_goes_first_in_whatever_order_they_came_in() -> None:
    queue = OldestFirst()
    for id_ in (3, 1, 2):
        queue.push(ticket(id_), now=0.0)
    head = queue.head(now=0.0)

    assert head is not None
    assert head.request.id == 1
    assert len(queue) == 3
