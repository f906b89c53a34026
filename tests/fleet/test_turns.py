"""Deficit round robin: how far apart two principals can be, and how long one can be passed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Principal
from helexa.fleet.share import Share
from helexa.fleet.turns import QUANTUM, SLACK, Ticket, Turns

LARGEST = 5000  # tokens of a request
NAMES = "abcde"

weights = st.integers(1, 8)
costs = st.one_of(st.integers(1, 50), st.integers(1, LARGEST))


def who(name: str) -> Principal:
    return Principal(name, "key")


def ticket(number: int, name: str, cost: int = 1, weight: int = 1) -> Ticket:
    return Ticket(number, who(name), cost=cost, share=Share(weight))


def filled(*tickets: Ticket) -> Turns:
    turns = Turns()
    for each in tickets:
        turns.push(each)
    return turns


def served(turns: Turns) -> list[int]:
    return [turns.pop().id for _ in range(turns.num_waiting)]


def test_one_principal_is_served_in_the_order_of_arrival() -> None:
    assert served(filled(*(ticket(i, "a", cost=900 - i) for i in range(9)))) == list(range(9))


def test_principals_take_turns_however_many_requests_one_has() -> None:
    flood = [ticket(i, "a") for i in range(4)]
    assert served(filled(*flood, ticket(8, "b"), ticket(9, "b"))) == [0, 8, 1, 9, 2, 3]


def test_who_had_a_long_request_sits_out_the_rounds_that_it_owes() -> None:
    long, short = ticket(0, "a", 4 * QUANTUM), [ticket(i, "b", QUANTUM) for i in range(2, 8)]
    assert served(filled(long, ticket(1, "a"), *short)) == [0, 2, 3, 4, 5, 1, 6, 7]


def test_twice_the_weight_is_twice_the_tokens() -> None:
    tickets = [ticket(i, "ab"[i % 2], 2 * QUANTUM, weight=1 + i % 2) for i in range(60)]
    turns = filled(*tickets)
    count = Counter(turns.pop().principal.account_id for _ in range(30))
    assert count == {"a": 10, "b": 20}


def test_a_newcomer_goes_before_the_next_request_of_one_who_floods() -> None:
    turns = filled(*(ticket(i, "a", 300) for i in range(20)))
    for _ in range(7):
        turns.pop()
    turns.push(ticket(50, "b", LARGEST))
    assert turns.pop().id == 50


def test_coming_and_going_wins_nothing() -> None:
    """One who has a request waiting at a time gets no more than one who has many."""
    turns = filled(*(ticket(i, "a", 400) for i in range(40)))
    got = Counter[str]()
    for number in range(100, 140):
        turns.push(ticket(number, "b", 400))
        while (one := turns.pop()).principal != who("b"):
            got["a"] += one.cost
        got["b"] += one.cost
    assert abs(got["a"] - got["b"]) < 2 * (QUANTUM + 400)


def test_what_a_request_really_took_is_settled_with_the_next_turns() -> None:
    turns = filled(*(ticket(i, "ab"[i % 2], QUANTUM) for i in range(20)))
    turns.correct(turns.pop(), 5 * QUANTUM)
    assert served(turns)[:7] == [1, 3, 5, 7, 9, 2, 11]


def test_a_request_that_was_thought_too_long_gives_its_turns_back() -> None:
    first, rest = (
        ticket(0, "a", 4 * QUANTUM),
        [ticket(i, "ab"[i % 2], QUANTUM) for i in range(1, 9)],
    )
    turns = filled(first, *rest)
    turns.correct(turns.pop(), QUANTUM)
    assert served(turns) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_one_took_while_nobody_else_waited_is_not_held_against_it() -> None:
    turns = filled(*(ticket(i, "a", QUANTUM) for i in range(4)))
    turns.correct(turns.pop(), 9 * QUANTUM)
    for number in range(4, 8):
        turns.push(ticket(number, "b", QUANTUM))
    assert served(turns) == [4, 1, 5, 2, 6, 3, 7]


def test_leaving_the_line_hands_the_turn_on() -> None:
    tickets = [ticket(0, "a"), ticket(1, "b"), ticket(2, "a"), ticket(3, "b")]
    turns = filled(*tickets)
    turns.remove(tickets[0])
    turns.remove(tickets[3])
    assert (turns.num_waiting, turns.num_principals) == (2, 2)
    assert served(turns) == [1, 2] or served(turns) == [2, 1]
    assert turns.first() is None


@given(
    st.lists(st.tuples(weights, st.lists(costs, min_size=3, max_size=15)), min_size=2, max_size=5)
)
def test_two_who_began_together_are_never_further_apart_than_a_quantum_and_the_largest_request(
    principals: list[tuple[int, list[int]]],
) -> None:
    turns, numbers = Turns(), iter(range(10**6))
    left = Counter[Principal]()
    for name, (weight, wanted) in zip(NAMES, principals, strict=False):
        for cost in wanted:
            turns.push(ticket(next(numbers), name, cost, weight))
            left[who(name)] += 1
    given_to = Counter[Principal](dict.fromkeys(left, 0))
    while min(left.values()):
        one = turns.pop()
        left[one.principal] -= 1
        given_to[one.principal] += one.charge(one.cost)
        apart = max(given_to.values()) - min(given_to.values())
        assert apart < QUANTUM + LARGEST


coming = st.tuples(st.just("come"), st.sampled_from(NAMES), costs)
serving = st.tuples(st.just("serve"), st.none(), st.none())
leaving = st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none())
scripts = st.lists(st.one_of(coming, coming, serving, leaving), max_size=60)


@given(scripts, st.lists(weights, min_size=5, max_size=5))
def test_over_any_time_in_which_two_wait_they_are_given_alike_within_twice_the_bound(
    script: list[tuple[str, str, int]], heavy: list[int]
) -> None:
    turns, given_to = Turns(), Counter[str]()
    waiting: dict[str, list[Ticket]] = {name: [] for name in NAMES}
    seen: dict[tuple[str, str], set[int]] = {}
    for number, (what, name, cost) in enumerate(script):
        if what == "come":
            waiting[name].append(ticket(number, name, cost, heavy[NAMES.index(name)]))
            turns.push(waiting[name][-1])
        elif what == "leave" and waiting[name]:
            turns.remove(waiting[name].pop(len(waiting[name]) // 2))
        elif what == "serve" and turns.num_waiting:
            one = turns.pop()
            waiting[one.principal.account_id].remove(one)
            given_to[one.principal.account_id] += one.charge(one.cost)
        assert turns.num_waiting == sum(map(len, waiting.values()))
        for pair in ((a, b) for a in NAMES for b in NAMES if a < b):
            if waiting[pair[0]] and waiting[pair[1]]:
                apart = seen.setdefault(pair, set())
                apart.add(given_to[pair[0]] - given_to[pair[1]])
                assert max(apart) - min(apart) < 2 * (QUANTUM + LARGEST)
            else:
                seen.pop(pair, None)


@given(st.integers(1, 6), st.integers(50, LARGEST), st.integers(1, 10))
def test_principals_who_come_one_after_the_other_pass_nobody_without_end(
    crowd: int, cost: int, owes: int
) -> None:
    """Each has one request, so that each is new; the one who waits owes some rounds."""
    turns = filled(ticket(0, "a", owes * QUANTUM), ticket(1, "a"))
    turns.pop()
    numbers = iter(range(2, 10**6))
    passed = 0
    while True:
        while turns.num_principals <= crowd:
            number = next(numbers)
            turns.push(ticket(number, f"new {number}", cost))
        one = turns.pop()
        if one.id == 1:
            break
        passed += one.cost
    assert passed <= (owes + 2) * ((crowd + 1) * QUANTUM + cost) + crowd * cost


def test_nothing_is_kept_of_those_who_are_gone() -> None:
    turns = Turns()
    for number in range(20_000):
        turns.push(one := ticket(number, f"passer-by {number}", 100))
        if number % 3:
            turns.pop()
        else:
            turns.remove(one)
    assert len(turns._flows) <= 4 * SLACK
    assert len(turns._heap) <= 4 * SLACK
