"""One request of several prompts and answers, and prompts that take their time."""

import pytest
import trio
from attrs import define, field
from fakes import FakeHost, ask, entry
from fronts import FakeFront, open_front

from helexa.config.schema import Admission, Config
from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Finished,
    Progress,
    PromptScored,
    Sampling,
    Started,
    TextDelta,
)
from helexa.errors import ContextLengthExceeded, HelexaError
from helexa.fleet.catalogue import Catalogue

CATALOGUE = Catalogue((entry("tiny"),))


@define(eq=False)
class FrontedHost(FakeHost):
    """A host with a gateway before it."""

    front: FakeFront = field(init=False)

    def __attrs_pre_init__(self) -> None:
        super().__init__(Config(admission=Admission(max_in_flight=4)))


@pytest.fixture
async def host(nursery: trio.Nursery) -> FrontedHost:
    host = FrontedHost()
    await host.start(nursery)
    host.front = await open_front(nursery, host, CATALOGUE)
    return host


async def events_of(host: FrontedHost, conversation: Conversation) -> list[Event]:
    return await host.front.answer(conversation)


def go_on(*texts: str, **options: object) -> Conversation:
    return Conversation("tiny", texts=texts, max_tokens=2, **options)  # type: ignore[arg-type]


async def test_every_text_gets_its_answers_and_counts_once_as_a_prompt(
    autojump_clock: object, host: FrontedHost
) -> None:
    events = await events_of(host, go_on("abc", "de", n=2))
    ended = [event.choice for event in events if isinstance(event, ChoiceFinished)]
    assert sorted(ended) == [0, 1, 2, 3]
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert finished.usage.prompt_tokens == 5
    assert finished.usage.completion_tokens == 8
    assert host.at_rest


async def test_every_text_times_n_takes_a_slot(
    autojump_clock: object, host: FrontedHost, nursery: trio.Nursery
) -> None:
    await events_of(host, ask(max_tokens=1))
    wide = Conversation("tiny", texts=("a", "b"), n=2, max_tokens=20)
    nursery.start_soon(events_of, host, wide)
    await trio.sleep(3)
    status = (await host.node.status()).model("tiny")
    assert status is not None
    assert status.in_flight == 4


async def test_a_prompt_that_is_scored_tells_so_before_its_answer(
    autojump_clock: object, host: FrontedHost
) -> None:
    events = await events_of(host, go_on("abc", prompt_logprobs=0))
    kinds = [type(event) for event in events if not isinstance(event, Progress)]
    assert kinds[:3] == [Started, PromptScored, TextDelta]
    scores = [event for event in events if isinstance(event, PromptScored)]
    assert sum(len(event.logprobs) for event in scores) == 3


async def test_one_text_that_is_too_long_refuses_all_and_names_the_field(
    autojump_clock: object, host: FrontedHost
) -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        await events_of(host, go_on("a", "x" * 801))
    assert refused.value.param == "prompt"
    assert host.at_rest


async def test_answers_of_one_request_are_drawn_from_seeds_of_their_own(
    autojump_clock: object, host: FrontedHost
) -> None:
    asked = Conversation("tiny", texts=("a", "b"), n=2, sampling=Sampling(seed=7), max_tokens=2)
    await events_of(host, asked)
    assert [order.sampling.seed for order in host.worker.orders] == [7, 8, 7, 8]


async def test_a_prompt_that_takes_its_time_opens_no_stream_and_then_shows_signs_of_life(
    autojump_clock: object, host: FrontedHost
) -> None:
    """Until it is counted it may be refused as too long, which has to be a status."""
    await events_of(host, ask(max_tokens=1))
    (usual,) = [event for event in await events_of(host, ask(max_tokens=1)) if is_sign(event)]
    host.library.prompt_seconds = 35
    signs = [event for event in await events_of(host, ask(max_tokens=1)) if is_sign(event)]
    assert signs == [usual] * (1 + 3)  # every ten seconds


def is_sign(event: Event) -> bool:
    return event == Progress("queued")


async def test_who_leaves_while_the_prompt_is_made_calls_the_work_off(
    autojump_clock: object, host: FrontedHost
) -> None:
    await events_of(host, ask(max_tokens=1))
    host.library.prompt_seconds = 30
    with trio.move_on_after(5):
        await events_of(host, ask(max_tokens=1))
    await trio.testing.wait_all_tasks_blocked()
    assert host.library.num_prompts_in_work == 0
    assert host.at_rest


async def test_a_bug_in_one_prompt_leaves_the_node_and_its_models_alone(
    autojump_clock: object, host: FrontedHost
) -> None:
    await events_of(host, ask(max_tokens=1))
    host.library.bug = ZeroDivisionError("a template of horrors")
    with pytest.raises(HelexaError, match="internal error"):
        await events_of(host, ask(max_tokens=1))
    host.library.bug = None
    assert isinstance((await events_of(host, ask(max_tokens=1)))[-1], Finished)
    assert host.worker.num_loads == 1
