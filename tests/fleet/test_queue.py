"""Interactive before batch, batch not for ever last, and who goes before whom."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Principal
from helexa.fleet.queue import BATCH_PART, Queue
from helexa.fleet.share import PRIORITIES, Priority, Share
from helexa.fleet.turns import Ticket

LARGEST = 3000  # tokens of a request

costs = st.integers(1, LARGEST)


def ticket(
    number: int, name: str, priority: Priority = "interactive", cost: int = 100, slots: int = 1
) -> Ticket:
    return Ticket(number, Principal(name, name), slots, cost, Share(1, priority))


def filled(*tickets: Ticket) -> Queue:
    queue = Queue()
    for each in tickets:
        queue.push(each)
    return queue


def served(queue: Queue) -> list[int]:
    return [queue.pop().id for _ in range(len(queue))]


def test_interactive_requests_go_before_batch_ones_that_came_first() -> None:
    queue = filled(ticket(1, "a", "batch"), ticket(2, "b"), ticket(3, "c"))
    assert served(queue) == [2, 3, 1]


def test_batch_requests_get_one_token_in_eight_while_both_wait() -> None:
    batch = [ticket(100 + i, "a", "batch") for i in range(5)]
    order = served(filled(*batch, *(ticket(i, "b") for i in range(30))))
    assert [i for i, number in enumerate(order[:32]) if number >= 100] == [7, 15, 23, 31]


def test_without_interactive_requests_batch_has_everything() -> None:
    assert served(filled(*(ticket(i, "a", "batch") for i in range(5)))) == [0, 1, 2, 3, 4]


def test_what_passed_a_batch_request_that_left_is_forgotten() -> None:
    gone = ticket(99, "a", "batch")
    queue = filled(gone, *(ticket(i, "b") for i in range(20)))
    for _ in range(6):
        queue.pop()
    queue.remove(gone)
    queue.push(ticket(98, "a", "batch"))
    assert served(queue)[:8] == [6, 7, 8, 9, 10, 11, 12, 98]


@given(costs, st.lists(costs, min_size=60, max_size=60))
def test_a_batch_request_is_passed_by_seven_times_its_tokens_and_one_request_at_the_most(
    cost: int, others: list[int]
) -> None:
    flood = (ticket(i, "abc"[i % 3], cost=other) for i, other in enumerate(others))
    queue = filled(ticket(1000, "z", "batch", cost), *flood)
    passed = 0
    while (one := queue.pop()).id != 1000:
        passed += one.cost
    assert passed < (BATCH_PART - 1) * cost + LARGEST or len(queue) == 0


tickets = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(PRIORITIES), costs, st.integers(1, 4)),
    max_size=25,
).map(lambda rows: [ticket(i, *row) for i, row in enumerate(rows)])


@given(tickets, st.integers(0, 25))
def test_the_order_that_is_told_is_the_order_of_service(
    tickets: list[Ticket], already: int
) -> None:
    queue = filled(*tickets)
    for _ in range(min(already, len(queue))):
        queue.pop()
    order, slots = queue.order(), 0
    for place in range(len(queue)):
        one = queue.pop()
        assert order.places[one.id] == place
        assert order.slots[place] == slots
        slots += one.slots
    assert order.slots[-1] == slots


def newcomer_in(tickets: list[Ticket], already: int, newcomer: Ticket) -> tuple[int, int]:
    """The place that one is told who comes after some were served, and the true one."""
    queue = filled(*tickets)
    for _ in range(min(already, len(queue))):
        queue.pop()
    told = queue.place_of(newcomer, queue.order())
    queue.push(newcomer)
    return told, queue.order().places[newcomer.id]


@given(tickets, st.integers(0, 25))
def test_a_newcomer_is_told_its_true_place(tickets: list[Ticket], already: int) -> None:
    tickets = [one for one in tickets if one.share.priority == "interactive"]
    told, true = newcomer_in(tickets, already, ticket(999, "d"))
    assert told == true


@given(tickets, st.integers(0, 25), st.sampled_from("abc"))
def test_who_comes_behind_its_own_is_told_no_better_place_than_is_true(
    tickets: list[Ticket], already: int, name: str
) -> None:
    tickets = [one for one in tickets if one.share.priority == "interactive"]
    told, true = newcomer_in(tickets, already, ticket(999, name))
    assert true <= told <= true + 2 * 256  # tokens of two others in one round


@given(tickets, st.integers(0, 25))
def test_a_batch_newcomer_is_told_no_better_place_than_is_true(
    tickets: list[Ticket], already: int
) -> None:
    told, true = newcomer_in(tickets, already, ticket(999, "d", "batch"))
    assert true <= told
