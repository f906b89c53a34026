"""Who may start, who waits and who is refused, as plain values."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Principal
from helexa.fleet.admission import Line, Rules, Ticket, admit, arrive, expected_wait, leave

ANN, BOB = Principal("ann", "ann"), Principal("bob", "bob")


def line_of(*tickets: Ticket, rules: Rules) -> tuple[Line, list[str]]:
    line, decisions = Line(), []
    for ticket in tickets:
        line, decision = arrive(line, ticket, rules)
        decisions.append(decision)
    return line, decisions


def test_slots_then_queue_then_refusal() -> None:
    rules = Rules(max_in_flight=1, max_queue_depth=1, max_per_principal=0)
    line, decisions = line_of(*(Ticket(i, ANN) for i in range(3)), rules=rules)
    assert decisions == ["admitted", "queued", "queue_full"]
    assert [t.id for t in line.running] == [0]
    assert [t.id for t in line.waiting] == [1]


def test_no_queue_means_a_refusal_at_once() -> None:
    rules = Rules(max_in_flight=1, max_queue_depth=0)
    assert line_of(Ticket(1, ANN), Ticket(2, ANN), rules=rules)[1] == ["admitted", "queue_full"]


def test_a_number_caps_a_principal_and_leaves_others_alone() -> None:
    rules = Rules(max_in_flight=4, max_per_principal=2)
    tickets = [Ticket(i, ANN) for i in range(3)] + [Ticket(9, BOB)]
    assert line_of(*tickets, rules=rules)[1] == [
        "admitted",
        "admitted",
        "principal_busy",
        "admitted",
    ]


def test_with_auto_a_lone_principal_has_every_slot() -> None:
    rules = Rules(max_in_flight=4)
    assert line_of(*(Ticket(i, ANN) for i in range(4)), rules=rules)[1] == ["admitted"] * 4


def test_with_auto_a_newcomer_goes_before_one_who_has_more_than_a_share() -> None:
    rules = Rules(max_in_flight=2)
    line, _ = line_of(Ticket(1, ANN), Ticket(2, ANN), Ticket(3, ANN), Ticket(4, BOB), rules=rules)
    line, admitted = admit(leave(line, 1), rules)
    assert [t.id for t in admitted] == [4]


def test_a_request_for_several_answers_waits_until_all_of_them_fit() -> None:
    rules = Rules(max_in_flight=4)
    line, decisions = line_of(Ticket(1, ANN, slots=2), Ticket(2, BOB, slots=3), rules=rules)
    assert decisions == ["admitted", "queued"]
    _, admitted = admit(leave(line, 1), rules)
    assert [t.id for t in admitted] == [2]


def test_the_expected_wait_grows_with_the_line() -> None:
    rules = Rules(max_in_flight=2, max_per_principal=0)
    waits = []
    line = Line()
    for i in range(4):
        waits.append(expected_wait(line, rules, service_seconds=4.0))
        line, _ = arrive(line, Ticket(i, ANN), rules)
    assert waits == [0, 0, 2, 4]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from("abc"), st.integers(1, 5)),
        st.tuples(st.just("leave"), st.integers(0, 30), st.none()),
    ),
    max_size=60,
)


@given(steps, st.integers(1, 4), st.integers(0, 4), st.sampled_from(["auto", 0, 1, 2]))
def test_slots_are_never_oversold_and_never_idle_while_somebody_waits(
    script: list[tuple[str, object, object]], width: int, depth: int, cap: object
) -> None:
    rules = Rules(width, depth, cap)  # type: ignore[arg-type]
    line, ids = Line(), 0
    for step, who, slots in script:
        if step == "arrive":
            ticket = Ticket(ids, Principal(str(who), str(who)), min(int(str(slots)), width))
            line, decision = arrive(line, ticket, rules)
            assert (decision == "admitted") == (ticket in line.running)
            assert (decision == "queued") == (ticket in line.waiting)
            ids += 1
        else:
            line, _ = admit(leave(line, int(str(who))), rules)
        assert line.in_flight <= width
        assert len(line.waiting) <= depth
        assert line.running or not line.waiting
