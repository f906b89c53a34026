"""Script models on a node, on virtual time: loading, placement, admission and failure are the real ones."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from fakes import FakeHost, FakeLibrary, ask, trace
from trio.testing import MockClock, wait_all_tasks_blocked

from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Finished,
    Started,
    TextDelta,
    Usage,
)
from helexa.engine.orders import Load, Piece, Script, ScriptLoad
from helexa.errors import InsufficientVram, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel, SamplingDefaults
from helexa.fleet.known import Known, Size
from helexa.fleet.limits import Terms
from helexa.text.prompt import Prompt

END = 0


class TokenReader:
    """Tokens as their numbers."""

    stopped = False
    reasoning_tokens = 0

    def __init__(self, choice: int, conversation: Conversation, prompt: Prompt) -> None:
        self._choice = choice

    def push(self, piece: Piece) -> Sequence[TextDelta | ChoiceFinished]:
        if piece.finish:
            return [ChoiceFinished(self._choice, piece.finish)]
        return [TextDelta(self._choice, f"{piece.token} ")]


class ScriptLibrary(FakeLibrary):
    """Every model is a script model: it counts to nine, a number a second, and breaks when told to."""

    async def known(self, entry: CatalogueModel) -> Known:
        await trio.lowlevel.checkpoint()
        return Known(
            entry=entry,
            path=Path("/nowhere"),
            size=Size(0, 0, 0),
            terms=Terms(1000, output_reserve=200),
            stop_ids=frozenset({END}),
            defaults=SamplingDefaults(),
            tool_call=False,
            reasoning=False,
            finish=lambda conversation, prompts: prompts,
            reader=TokenReader,
            score=lambda scores: (),
            script=ScriptLoad(4.0, entry.vram_mb << 20),
        )

    async def prompts(
        self, known: Known, conversation: Conversation, salt: str = ""
    ) -> Sequence[Prompt]:
        await trio.lowlevel.checkpoint()
        said = conversation.messages[-1].parts[0].text  # type: ignore[union-attr]
        script = Script((*range(1, 10), END), 1.0, 2 if said == "break" else None)
        return (Prompt(tuple(map(ord, said)), said, script=script),)


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = FakeHost(library=ScriptLibrary())
    await host.start(nursery)
    return host


def entry(model: str = "tiny", vram_mb: int = 1000) -> CatalogueModel:
    return CatalogueModel(id=model, harness="script", script="/rules.toml", vram_mb=vram_mb)


def torch_load(uid: int) -> Load:
    return Load(uid, "other", Path("/nowhere"), "cpu", "fp32", 8, 256)


async def load(host: FakeHost, model: CatalogueModel) -> None:
    await host.node.load(model).reply.wait()


async def answer(host: FakeHost, text: str = "hi", **options: object) -> list[Event]:
    conversation = ask(text, **options)
    known = await host.node.known(entry(conversation.model))
    prompts = await host.node.prepare(known, conversation).reply.wait()
    events: list[Event] = []
    answer = host.node.generate(known, conversation, prompts, trace())
    async with aclosing(answer) as batches:
        async for batch in batches:
            events += batch
    return events


async def test_a_script_model_loads_for_its_time_and_answers_at_its_pace(
    autojump_clock: MockClock, host: FakeHost
) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load, host, entry())
        await trio.sleep(2.1)
        (state,) = (await host.node.status()).models
        assert (state.status, state.done_bytes, state.total_bytes) == (
            "loading",
            500 << 20,
            1000 << 20,
        )
    assert trio.current_time() - began == 4.0
    began = trio.current_time()
    events = [e for e in await answer(host, n=2) if not isinstance(e, TextDelta)]
    assert trio.current_time() - began == 10.0
    assert Started(2) in events
    assert events[-1] == Finished(Usage(2, 20))
    assert host.worker.num_loads == 0  # the device's thread had nothing to do


async def test_a_script_model_takes_the_memory_that_others_then_lack(
    autojump_clock: MockClock, host: FakeHost
) -> None:
    await load(host, entry("one", 8000))
    status = await host.node.status()
    assert status.model("one").vram_used_mb == 8000  # type: ignore[union-attr]
    assert status.devices[0].readings.vram_used_mb == 8000  # type: ignore[union-attr]
    with pytest.raises(InsufficientVram) as refused:
        await load(host, entry("two", 8000))
    assert refused.value.details == {"required_mb": 8000, "free_mb": 8000}
    await host.node.unload("one")
    await load(host, entry("two", 8000))


async def test_two_loads_at_once_are_not_promised_the_same_memory(
    autojump_clock: MockClock, host: FakeHost
) -> None:
    refused = []

    async def try_to_load(model: str) -> None:
        try:
            await load(host, entry(model, 6000))
        except InsufficientVram as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for delay, model in enumerate(("one", "two", "three")):
            nursery.start_soon(try_to_load, model)
            await trio.sleep(delay)
    assert len(refused) == 1


async def test_more_requests_than_slots_wait_for_their_turn(
    autojump_clock: MockClock, host: FakeHost
) -> None:
    await load(host, entry())
    began, ends = trio.current_time(), []

    async def note() -> None:
        await answer(host)
        ends.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(note)
    assert sorted(ends) == [10.0] * 8 + [20.0] * 2


async def test_an_answer_that_fails_gives_its_slot_back_and_the_model_lives_on(
    autojump_clock: MockClock, host: FakeHost
) -> None:
    await load(host, entry())
    for _ in range(9):
        with pytest.raises(ServiceUnavailable, match="failed after 2 tokens"):
            await answer(host, "break")
    assert (await answer(host))[-1] == Finished(Usage(2, 10))
    await wait_all_tasks_blocked()
    (state,) = (await host.node.status()).models
    assert (state.status, state.in_flight) == ("loaded", 0)
    assert host.at_rest


async def test_a_load_that_is_called_off_leaves_the_memory_free(
    autojump_clock: MockClock, host: FakeHost
) -> None:
    request = host.node.load(entry("one", 12_000))
    await trio.sleep(2)
    await host.node.unload("one")
    with pytest.raises(ServiceUnavailable, match="called off"):
        await request.reply.wait()
    await load(host, entry("two", 12_000))


async def test_script_models_come_back_after_their_device_crashed(
    autojump_clock: MockClock, host: FakeHost
) -> None:
    await load(host, entry())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_failure, host)
        await trio.sleep(2.5)
        host.worker.crash = OSError("boom")
        host.device.load(torch_load)  # gives the thread a step to crash in
    await trio.sleep(20)
    assert (await answer(host))[-1] == Finished(Usage(2, 10))


async def expect_failure(host: FakeHost) -> None:
    with pytest.raises(ServiceUnavailable, match="device 0 failed"):
        await answer(host)
