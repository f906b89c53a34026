"""The book: whatever happens in whatever order, nobody spends more than they may, nor is refused less."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from ledgers import ANN, BOB, want

from helexa.accounts.amount import FREE, NOTHING, Amount, Prices, Used
from helexa.accounts.book import Book, MeterId, Open, Refused, meters_of
from helexa.accounts.refusal import refusal
from helexa.accounts.windows import BALANCE, Cap, Meter, Scope, Window
from helexa.conversation import Principal
from helexa.errors import BudgetExhausted, BudgetHeld, InsufficientQuota

LAB, KEY = Scope("lab"), Scope("lab", "ann")
HOUR = Window("rolling", 3600)
DEAR = Prices(input=3, output=10, cache_read=1, cache_write=4)


def reserved(book: Book, *caps: Cap, now: float = 0.0, **more: Any) -> Open:
    opened = book.reserve(1, want(**more), caps, now)
    assert isinstance(opened, Open)
    return opened


def refused(book: Book, *caps: Cap, now: float = 0.0, **more: Any) -> Refused:
    found = book.reserve(1, want(**more), caps, now)
    assert isinstance(found, Refused)
    return found


def test_a_request_holds_its_prompt_and_all_that_its_answers_may_have() -> None:
    book, cap = Book(), Cap(KEY, tokens=100)
    opened = reserved(book, cap, prompt=10, output=20, num_answers=3)
    assert book.budget(cap, 0).reserved == Amount(70)
    book.use(opened, Used(10, 25), 0)
    assert book.budget(cap, 0) == Meter(spent=Amount(35), reserved=Amount(35))
    book.close(opened, opened.used, 0)
    assert book.budget(cap, 0) == Meter(spent=Amount(35))


def test_key_and_account_are_charged_together_or_not_at_all() -> None:
    book, of_key, of_account = Book(), Cap(KEY, tokens=100), Cap(LAB, tokens=40)
    reserved(book, of_key, of_account)
    found = refused(book, of_key, of_account)
    assert found.cap == of_account
    assert book.budget(of_key, 0).reserved == Amount(30)


def test_money_is_a_bound_of_its_own() -> None:
    book, cap = Book(), Cap(KEY, pico_usd=10 * 4 + 20 * 10)
    opened = reserved(book, cap, prices=DEAR)
    assert refused(book, cap, prices=DEAR, prompt=1, output=1).is_held
    book.close(opened, Used(10, 5, cached=8), 0)
    assert book.budget(cap, 0).spent == Amount(15, 2 * 3 + 8 * 1 + 5 * 10)


def test_what_goes_beyond_a_reservation_is_charged_as_far_as_there_is_room() -> None:
    book, cap = Book(), Cap(KEY, tokens=50)
    opened = reserved(book, cap)
    book.use(opened, Used(45, 20), 0)
    assert (opened.charged, opened.uncharged) == (Amount(50), Amount(15))
    book.close(opened, opened.used, 0)
    assert book.budget(cap, 0) == Meter(spent=Amount(50))


def test_a_last_word_that_is_smaller_gives_back() -> None:
    book, cap = Book(), Cap(KEY, tokens=50)
    opened = reserved(book, cap)
    book.use(opened, Used(10, 20), 0)
    book.close(opened, Used(8, 12), 0)
    assert book.budget(cap, 0) == Meter(spent=Amount(20))


@pytest.mark.parametrize(
    ("window", "spends", "kind", "retry_after"),
    [
        (BALANCE, 25, InsufficientQuota, None),
        (HOUR, 25, BudgetExhausted, 3600.0),
        (Window("sliding", 3600), 25, BudgetExhausted, 3610.0),
        (BALANCE, 0, BudgetHeld, 2.0),
        (HOUR, 0, BudgetHeld, 2.0),
    ],
)
def test_why_there_is_no_room_decides_what_a_client_is_told(
    window: Window, spends: int, kind: type[Exception], retry_after: float | None
) -> None:
    book, cap = Book(), Cap(KEY, window, tokens=50)
    opened = reserved(book, cap)
    if spends:
        book.close(opened, Used(10, spends - 10), 0)
    error = refusal(refused(book, cap), want())
    assert type(error) is kind
    assert error.retry_after == pytest.approx(retry_after) if retry_after else True
    assert error.details["remaining_tokens"] == (25 if spends else 20)


def test_a_request_larger_than_its_whole_window_is_told_when_the_window_ends() -> None:
    cap = Cap(KEY, HOUR, tokens=10)
    error = refusal(refused(Book(), cap, output=1000), want(output=1000))
    assert isinstance(error, BudgetExhausted)
    assert error.retry_after == 3600
    assert error.message.endswith("this request is larger than the whole budget")


@given(
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(1, 20),
    st.integers(1, 3),
    st.sampled_from([FREE, DEAR]),
)
def test_the_longest_answers_that_are_told_to_fit_do_and_longer_ones_do_not(
    tokens: int, money: int, prompt: int, answers: int, cost: Prices
) -> None:
    caps = [Cap(KEY, tokens=tokens), Cap(LAB, HOUR, pico_usd=money * 10)]

    def ask(output: int) -> Open | Refused:
        return Book().reserve(1, want(ANN, prompt, output, cost, num_answers=answers), caps, 0)

    found = ask(1000)
    assert isinstance(found, Refused)
    told = refusal(found, want(ANN, prompt, 1000, cost, num_answers=answers)).message
    _, is_told, rest = told.partition(" of up to 1000")[2].partition(" of up to ")
    most = int(rest.partition(";")[0]) if is_told else 0
    assert isinstance(ask(most + 1), Refused)
    assert not most or isinstance(ask(most), Open)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("cap", [Cap(KEY, tokens=5), Cap(LAB, HOUR, pico_usd=5)])
def test_no_client_takes_a_budget_for_a_context_that_is_too_long(cap: Cap, exact: bool) -> None:
    wanted = want(exact=exact, prices=DEAR, num_answers=2)
    found = Book().reserve(1, wanted, [cap], 0)
    assert isinstance(found, Refused)
    text = refusal(found, wanted).message.lower()
    for phrase in ("context", "token limit", "too many tokens", "limit of", "exceed", "too long"):
        assert phrase not in text


def test_a_principal_without_caps_is_counted_all_the_same() -> None:
    book = Book()
    opened = reserved(book)
    book.close(opened, Used(10, 5), 0)
    assert set(book.take_changed()) == {(KEY, BALANCE), (LAB, BALANCE)}
    assert book.take_changed() == {}


# -- any interleaving --------------------------------------------------------------------------------

CAPS: dict[Principal, tuple[Cap, ...]] = {
    ANN: (Cap(KEY, tokens=300), Cap(LAB, HOUR, tokens=200)),
    BOB: (
        Cap(Scope("lab", "bob"), Window("sliding", 600), tokens=150, pico_usd=900),
        Cap(LAB, HOUR, tokens=200),
    ),
}


class Interleaved(RuleBasedStateMachine):
    """Reservations, progress, ends, time and crashes in any order, against a list of charges."""

    opened = Bundle("opened")

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.disk: dict[MeterId, Meter] = {}
        self.now = 0.0
        self.life = 0
        self.live: dict[int, Open] = {}
        self.next_id = 0

    @rule(
        target=opened,
        who=st.sampled_from([ANN, BOB]),
        prompt=st.integers(1, 40),
        output=st.integers(1, 80),
    )
    def reserve(self, who: Principal, prompt: int, output: int) -> tuple[int, int]:
        wanted = want(who, prompt, output, DEAR)
        self.next_id += 1
        found = self.book.reserve(self.next_id, wanted, CAPS[who], self.now)
        most = DEAR.at_most(prompt, output)
        if isinstance(found, Refused):
            meter = self.book.budget(found.cap, self.now)
            taken = meter.spent + self.held_on(found.cap)
            assert not (taken + most).fits(bounds(found.cap))
        else:
            self.live[found.id] = found
        return self.life, self.next_id

    def held_on(self, cap: Cap) -> Amount:
        """What live requests hold, counted one by one."""
        held = NOTHING
        for one in self.live.values():
            if (cap.scope, cap.window) in meters_of(one.wanted.principal, one.caps):
                held += one.held
        return held

    @rule(which=opened, prompt=st.integers(0, 60), completion=st.integers(0, 120))
    def use(self, which: tuple[int, int], prompt: int, completion: int) -> None:
        if (one := self.live.get(which[1])) is not None:
            self.book.use(one, Used(prompt, completion), self.now)
            assert one.charged + one.uncharged == DEAR.of(one.used)

    @rule(which=consumes(opened))
    def close(self, which: tuple[int, int]) -> None:
        if (one := self.live.pop(which[1], None)) is not None:
            self.book.close(one, one.used, self.now)

    @rule(seconds=st.floats(0, 2000))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def commit(self) -> None:
        self.disk |= self.book.take_changed()

    @rule(commits=st.booleans())
    def crash(self, commits: bool) -> None:
        """What was not committed is lost; what was held is free again."""
        if commits:
            self.commit()
        self.book = Book(
            {id: Meter(m.spent, NOTHING, m.started_at, m.slots) for id, m in self.disk.items()}
        )
        self.live = {}
        self.life += 1

    @invariant()
    def nobody_has_more_than_a_cap(self) -> None:
        for cap in {cap for caps in CAPS.values() for cap in caps}:
            meter = self.book.budget(cap, self.now)
            assert meter.taken.fits(bounds(cap))
            assert meter.reserved == self.held_on(cap)

    @invariant()
    def the_open_are_counted(self) -> None:
        assert self.book.num_open == len(self.live)

    def teardown(self) -> None:
        """At the end of every story nothing stays taken."""
        for one in self.live.values():
            self.book.close(one, one.used, self.now)
        assert all(meter.reserved == NOTHING for meter in self.book.meters.values())


def bounds(cap: Cap) -> Amount:
    return Amount(
        2**62 if cap.tokens is None else cap.tokens,
        2**62 if cap.pico_usd is None else cap.pico_usd,
    )


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=100, stateful_step_count=40)
