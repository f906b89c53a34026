"""What is reserved for a request, and what its reservation is told while the answer comes."""

from typing import Any

from attrs import define, field

from helexa.accounts.amount import Used
from helexa.accounts.provider import Granted, Wanted
from helexa.charge import USUAL_OUTPUT, Charge, wanted
from helexa.conversation import (
    Conversation,
    Finished,
    Passed,
    Progress,
    Started,
    TextDelta,
    Usage,
    about_tokens,
)
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.limits import Limit
from helexa.nodes.asked import Asked, Prepared
from helexa.text.prompt import Prompt
from helexa.trace import Trace


@define(eq=False)
class Noted(Granted):
    """A reservation that remembers what it was told."""

    max_output: int = 100
    told: list[Used] = field(factory=list)

    def used(self, used: Used) -> None:
        self.told.append(used)

    def settle(self, used: Used) -> None:
        self.told.append(used)


def charged(noted: Noted, trace: Trace) -> Charge:
    asked = Asked("chat", Conversation(model="m", messages=()), {}, stream=True)
    return Charge(noted, Prepared(asked, CatalogueModel(id="m"), 7), trace)


async def test_an_answer_is_charged_by_what_is_seen_of_it_until_its_usage_is_known() -> None:
    noted, trace = Noted(), Trace("req_1", "chat")
    charge = charged(noted, trace)
    charge.saw([Progress("queued", 3)])
    charge.saw([Started(9), TextDelta(0, "a"), TextDelta(0, "b")])
    charge.saw([Passed(b"...", tokens=3)])
    assert noted.told == [Used(9, 2), Used(9, 5)]
    trace.usage = Usage(9, 6)
    charge.settle()
    assert noted.told[-1] == Used(9, 6)


async def test_an_answer_that_comes_whole_is_charged_once() -> None:
    noted, trace = Noted(), Trace("req_1", "chat")
    charge = charged(noted, trace)
    charge.saw([Passed(b"...", tokens=3), Finished(Usage(9, 3))])
    assert not noted.told
    charge.settle()
    assert noted.told == [Used(7, 3)]  # seen, where nobody noted the usage


async def test_tokens_that_the_client_does_not_see_are_charged_as_they_come() -> None:
    noted = Noted()
    charge = charged(noted, Trace("req_1", "chat"))
    charge.saw([Started(9)])
    charge.saw([Progress("decode", 40)])
    charge.saw([Progress("decode", 80)])
    charge.saw([TextDelta(0, "seen")])
    charge.saw([Progress("decode")])  # of a node that does not tell how many
    charge.settle()
    assert [used.completion for used in noted.told] == [40, 80, 81, 81]


# -- what may be taken ---------------------------------------------------------------------------------

LIMIT = Limit(context=1000, input=900, output=100)


def most(limit: Limit | None = LIMIT, prompts: tuple[int, ...] = (), **asked: Any) -> Wanted:
    conversation = Conversation(model="m", **asked)
    made = [Prompt(tuple(range(length)), "") for length in prompts] or None
    prepared = Prepared(
        Asked("chat", conversation, {}, stream=True),
        CatalogueModel(id="m"),
        sum(prompts) or 50,
        made,
    )
    return wanted(prepared, limit, Trace("req_1", "chat"))


async def test_an_answer_may_take_what_is_asked_for_else_the_model_s_limit() -> None:
    assert most(max_tokens=30).max_output == 30
    assert most().max_output == 100
    assert most(None).max_output == USUAL_OUTPUT


async def test_an_answer_never_takes_more_than_fits_after_the_longest_prompt() -> None:
    assert most(prompts=(10, 950), texts=("a", "b"), max_tokens=32_000).max_output == 50
    assert most(prompts=(1000,), max_tokens=32_000).max_output == 1


async def test_every_prompt_and_every_answer_to_it_is_reserved_for() -> None:
    asked = most(prompts=(10, 20), texts=("a", "b"), n=3, max_tokens=7)
    assert (asked.prompt_tokens, asked.num_answers, asked.exact) == (30, 6, True)


async def test_a_prompt_that_nobody_here_can_count_is_an_estimate() -> None:
    assert (most().prompt_tokens, most().exact) == (50, False)
    assert [about_tokens(num_bytes) for num_bytes in (0, 1, 4, 5)] == [0, 1, 1, 2]
