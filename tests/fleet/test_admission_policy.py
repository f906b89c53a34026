"""Who may start, who waits and who is refused, as plain values."""

from collections import Counter
from itertools import count, cycle

from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Principal
from helexa.fleet.admission import Line, Rules, queued_because
from helexa.fleet.share import PRIORITIES, Share
from helexa.fleet.turns import QUANTUM, Ticket

ANN, BOB, CID = Principal("ann", "ann"), Principal("bob", "bob"), Principal("cid", "cid")


def line_of(*tickets: Ticket, rules: Rules) -> tuple[Line, list[str]]:
    line = Line(rules)
    return line, [line.arrive(ticket)[0] for ticket in tickets]


def tickets(principal: Principal, first: int, count: int, **options: object) -> list[Ticket]:
    return [Ticket(first + i, principal, **options) for i in range(count)]  # type: ignore[arg-type]


def ids(tickets: list[Ticket]) -> list[int]:
    return [ticket.id for ticket in tickets]


# -- how many ----------------------------------------------------------------------------------------


def test_slots_then_queue_then_refusal() -> None:
    line, decisions = line_of(*tickets(ANN, 0, 3), rules=Rules(1, max_queue_depth=1))
    assert decisions == ["admitted", "queued", "queue_full"]
    assert (list(line.running), list(line.waiting)) == ([0], [1])


def test_no_queue_means_a_refusal_at_once() -> None:
    one, other = tickets(ANN, 0, 2)
    assert line_of(one, other, rules=Rules(1, 0))[1] == ["admitted", "queue_full"]
    alone, guest = Ticket(1, ANN), Ticket(2, BOB)
    assert line_of(alone, guest, rules=Rules(1, 0))[1] == ["admitted", "queue_full"]


def test_a_number_caps_a_principal_and_leaves_others_alone() -> None:
    rules = Rules(max_in_flight=4, max_per_principal=2)
    decisions = line_of(*tickets(ANN, 0, 3), Ticket(9, BOB), rules=rules)[1]
    assert decisions == ["admitted", "admitted", "principal_busy", "admitted"]


def test_a_number_counts_those_who_wait_too() -> None:
    rules = Rules(max_in_flight=1, max_per_principal=2)
    decisions = line_of(*tickets(ANN, 0, 3), Ticket(9, BOB), rules=rules)[1]
    assert decisions == ["admitted", "queued", "principal_busy", "queued"]


def test_with_0_one_principal_may_fill_the_whole_queue() -> None:
    rules = Rules(max_in_flight=1, max_queue_depth=2, max_per_principal=0)
    decisions = line_of(*tickets(ANN, 0, 3), Ticket(9, BOB), rules=rules)[1]
    assert decisions == ["admitted", "queued", "queued", "queue_full"]


def test_with_auto_a_lone_principal_has_every_slot_and_every_place() -> None:
    decisions = line_of(*tickets(ANN, 0, 7), rules=Rules(4, max_queue_depth=2))[1]
    assert decisions == ["admitted"] * 4 + ["queued"] * 2 + ["queue_full"]


# -- who floods fills his own queue alone ------------------------------------------------------------


def test_a_newcomer_has_a_place_in_the_queue_that_another_has_filled() -> None:
    line, _ = line_of(*tickets(ANN, 0, 9), rules=Rules(1, max_queue_depth=8))
    assert line.arrive(Ticket(20, BOB))[0] == "queued"
    assert ids(line.leave(0)) == [20]


def test_while_others_wait_a_principal_s_own_queue_is_its_share_of_the_places() -> None:
    line, _ = line_of(*tickets(ANN, 0, 5), Ticket(20, BOB), rules=Rules(1, max_queue_depth=8))
    assert line.arrive(Ticket(30, ANN))[0] == "own_queue_full"
    decisions = [line.arrive(ticket)[0] for ticket in tickets(BOB, 31, 4)]
    assert decisions == ["queued"] * 3 + ["own_queue_full"]


def test_a_share_of_the_places_goes_by_weight() -> None:
    line, _ = line_of(*tickets(ANN, 0, 3), rules=Rules(1, max_queue_depth=8))
    heavy = tickets(BOB, 20, 7, share=Share(weight=3))
    assert [line.arrive(ticket)[0] for ticket in heavy] == ["queued"] * 6 + ["own_queue_full"]


def test_in_a_full_queue_a_newcomer_has_one_place() -> None:
    line, _ = line_of(*tickets(ANN, 0, 9), rules=Rules(1, max_queue_depth=8))
    assert [line.arrive(ticket)[0] for ticket in tickets(BOB, 20, 2)] == ["queued", "queue_full"]


def test_twice_the_depth_is_the_end_for_everybody() -> None:
    line, _ = line_of(*tickets(ANN, 0, 5), rules=Rules(1, max_queue_depth=4))
    newcomers = [Ticket(20 + i, Principal(f"p{i}", "k")) for i in range(5)]
    decisions = [line.arrive(newcomer)[0] for newcomer in newcomers]
    assert decisions == ["queued"] * 4 + ["queue_full"]


def test_when_the_others_are_gone_the_whole_queue_is_there_again() -> None:
    line, _ = line_of(*tickets(ANN, 0, 5), Ticket(20, BOB), rules=Rules(1, max_queue_depth=8))
    assert line.arrive(Ticket(30, ANN))[0] == "own_queue_full"
    line.leave(20)
    assert line.arrive(Ticket(31, ANN))[0] == "queued"


# -- who is next -------------------------------------------------------------------------------------


def test_a_newcomer_goes_before_the_next_of_one_who_has_all_slots() -> None:
    line, _ = line_of(*tickets(ANN, 1, 3), Ticket(4, BOB), rules=Rules(2))
    assert ids(line.leave(1)) == [4]


def test_a_request_for_several_answers_waits_until_all_of_them_fit() -> None:
    line, decisions = line_of(Ticket(1, ANN, slots=2), Ticket(2, BOB, slots=3), rules=Rules(4))
    assert decisions == ["admitted", "queued"]
    assert ids(line.leave(1)) == [2]


def test_a_wide_request_whose_turn_it_is_is_not_passed_by_narrow_ones() -> None:
    line, _ = line_of(*tickets(ANN, 1, 4), Ticket(5, BOB, slots=4), rules=Rules(4))
    for number in range(1, 4):
        assert line.leave(number) == []
        assert line.arrive(Ticket(number + 10, ANN))[0] == "queued"
    assert ids(line.leave(4)) == [5]


def test_a_request_wider_than_the_model_runs_alone() -> None:
    line, decisions = line_of(Ticket(1, ANN, slots=9), Ticket(2, BOB), rules=Rules(4))
    assert decisions == ["admitted", "queued"]
    assert ids(line.leave(1)) == [2]


def test_several_narrow_ones_start_when_a_wide_one_ends() -> None:
    wide = Ticket(1, ANN, slots=4)
    line, _ = line_of(wide, *tickets(BOB, 2, 3), rules=Rules(4))
    assert ids(line.leave(1)) == [2, 3, 4]


def test_who_leaves_the_queue_hands_the_place_on_at_once() -> None:
    line, _ = line_of(Ticket(1, ANN, slots=3), rules=Rules(4, max_queue_depth=2))
    line.arrive(Ticket(2, BOB, slots=4))
    line.arrive(Ticket(3, CID))
    assert ids(line.leave(2)) == [3]
    assert line.arrive(Ticket(4, BOB))[0] == "queued"


def test_unknown_requests_leave_without_a_trace() -> None:
    line, _ = line_of(Ticket(1, ANN), rules=Rules(1))
    assert line.leave(77) == []
    assert (line.in_flight, list(line.running)) == (1, [1])


def test_an_answer_that_grew_long_is_paid_for_with_the_next_turns() -> None:
    flood = [Ticket(i, (ANN, BOB)[i % 2], cost=QUANTUM) for i in range(20)]
    line, _ = line_of(*flood, rules=Rules(1, max_queue_depth=20))
    order = []
    started = line.leave(0, tokens=4 * QUANTUM)
    while started:
        order += ids(started)
        started = line.leave(started[0].id)
    assert order[:7] == [1, 3, 5, 2, 7, 4, 9]


# -- what is told ------------------------------------------------------------------------------------


def test_the_reason_for_waiting_is_told_in_counts() -> None:
    heavy = Ticket(9, BOB, slots=2, share=Share(weight=3))
    line, _ = line_of(*tickets(ANN, 0, 4), heavy, rules=Rules(2))
    place = line.order().places[9]
    assert queued_because(line.standing(heavy, place)) == (
        "queued: 2 of 2 slots are taken, it needs 2; it is next; 2 keys wait, its share is 3/4"
    )


def test_slots_ahead_are_those_of_who_goes_first() -> None:
    line, _ = line_of(*tickets(ANN, 0, 6), rules=Rules(2))
    assert line.slots_ahead(Ticket(9, ANN), line.order()) == 4
    assert line.slots_ahead(Ticket(9, BOB), line.order()) == 0


# -- whatever happens --------------------------------------------------------------------------------

arriving = st.tuples(
    st.just("arrive"),
    st.sampled_from("abc"),
    st.integers(1, 5),
    st.integers(1, 2000),
    st.sampled_from(PRIORITIES),
)
leaving = st.tuples(st.just("leave"), st.integers(0, 40), st.integers(1, 4000))
lives = st.lists(st.one_of(arriving, leaving), max_size=60)
caps = st.sampled_from(["auto", 0, 1, 2])


@given(lives, st.integers(1, 4), st.integers(0, 4), caps)
def test_slots_are_never_oversold_and_never_idle_while_the_next_would_fit(
    script: list[tuple[object, ...]], width: int, depth: int, cap: object
) -> None:
    line, number = Line(Rules(width, depth, cap)), 0  # type: ignore[arg-type]
    for what, *rest in script:
        if what == "arrive":
            name, slots, cost, priority = rest
            share = Share(1, priority)  # type: ignore[arg-type]
            who = Principal(str(name), str(priority))
            ticket = Ticket(number, who, min(int(str(slots)), width), int(str(cost)), share)
            decision, started = line.arrive(ticket)
            assert (decision == "admitted") == (number in line.running)
            assert (decision == "queued") == (number in line.waiting)
            number += 1
        else:
            started = line.leave(int(str(rest[0])), int(str(rest[1])))
        assert all(ticket.id in line.running for ticket in started)
        assert line.in_flight == sum(ticket.slots for ticket in line.running.values()) <= width
        assert len(line.waiting) <= depth * (2 if cap == "auto" else 1)
        assert len(line.order().places) == len(line.waiting)
        assert line.num_principals == len({t.principal for t in line.waiting.values()})
        assert line.running or not line.waiting
    for ticket_id in [*line.running, *line.waiting]:
        line.leave(ticket_id)
    assert line.standing(Ticket(999, ANN), 0).weights == 1
    assert not line._present


sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=9)


@given(st.integers(1, 4), st.integers(1, 5), sizes)
def test_who_asks_for_one_thing_at_a_time_is_not_kept_waiting_by_those_who_flood(
    width: int, num_floods: int, sizes: list[int]
) -> None:
    """While it waits, each of the others is given two quanta and two requests at the most."""
    line, numbers, costs = Line(Rules(width, max_queue_depth=8)), count(), cycle(sizes)
    ann, num_served, given_to = -1, 0, Counter[Principal]()
    for _ in range(80):
        for flood in range(num_floods):
            decision = "queued"
            while decision in ("admitted", "queued"):
                ticket = Ticket(next(numbers), Principal(f"flood {flood}", "key"), cost=next(costs))
                decision, _ = line.arrive(ticket)
        if ann not in line.running and ann not in line.waiting:
            ann = next(numbers)
            given_to.clear()
            assert line.arrive(Ticket(ann, ANN, cost=next(costs)))[0] in ("admitted", "queued")
            num_served += 1
        for started in line.leave(next(iter(line.running))):
            given_to[started.principal] += started.cost
        if ann in line.waiting:
            assert max(given_to.values(), default=0) <= 2 * (QUANTUM + max(sizes))
    assert num_served > 1
