"""Templates in processes: bounded, killed when nobody waits, and made anew."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio_parallel

from helexa.conversation import Conversation, Message, Text
from helexa.errors import ServiceUnavailable
from helexa.renderers import MAX_RENDERINGS, Renderers, open_renderers
from helexa.text import render as rendering
from helexa.text.render import Rendered, Unrendered
from helexa.text.template import ChatTemplate, order_of

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def order(source: str = "{{ messages[0].content }}", said: str = "Hi") -> bytes:
    conversation = Conversation("m", (Message("user", (Text(said),)),))
    return order_of(ChatTemplate(source), conversation, {})


async def process_of(renderers: Renderers) -> int:
    """Of the one that takes the next order, when all are idle."""
    await renderers.warm()
    while renderers._context.statistics().running_workers:
        await trio.lowlevel.checkpoint()
    pid: int = await renderers._context.run_sync(os.getpid)
    return pid


async def test_one_process_renders_one_after_the_other(renderers: Renderers) -> None:
    pid = await process_of(renderers)
    assert await renderers.render(order()) == Rendered("Hi")
    assert await renderers.render(order("{% if %}")) != Rendered("Hi")
    assert await process_of(renderers) == pid != os.getpid()


async def test_a_long_conversation_comes_back_whole(renderers: Renderers) -> None:
    said = "naïve 😀 " * 100_000
    assert await renderers.render(order(said=said)) == Rendered(said)


ENDLESSLY = [
    ENDLESS,
    "{{ 9 ** (9 ** 9) }}",
    "{% macro a(n) %}{% if n %}{{ a(n-1) }}{{ a(n-1) }}{% endif %}{% endmacro %}{{ a(60) }}",
]


@pytest.mark.parametrize("source", ENDLESSLY, ids=["loop", "power", "macro"])
async def test_a_template_that_does_not_end_is_ended(source: str) -> None:
    async with open_renderers(max_seconds=0.2) as renderers:
        await renderers.warm()
        assert await renderers.render(order(source)) == Unrendered("it takes more than 0.2 s")
        assert await renderers.render(order()) == Rendered("Hi")


HUGE = [
    "{{ 'a' * 10 ** 10 }}",
    "{% set ns = namespace(x='ab' * 1000) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ '%10000000000d' % 1 }}",
    "{{ ('x' * 90000).join(range(99999) | map('string')) }}",
]


@pytest.mark.parametrize("source", HUGE, ids=["times", "text", "list", "format", "join"])
async def test_a_template_that_fills_the_memory_is_ended(renderers: Renderers, source: str) -> None:
    assert await renderers.render(order(source)) == Unrendered("it takes more than 1024 MiB")
    assert await renderers.render(order()) == Rendered("Hi")


async def test_a_process_that_was_large_is_not_used_again(renderers: Renderers) -> None:
    pid = await process_of(renderers)
    great = await renderers.render(order("{{ ('a' * (300 * 2 ** 20)) | length }}"))
    assert great == Rendered(str(300 * 2**20))
    assert await process_of(renderers) != pid


async def test_whoever_stops_waiting_ends_the_process(renderers: Renderers) -> None:
    pid = await process_of(renderers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(renderers.render, order(ENDLESS))
        while not renderers._at_once.borrowed_tokens:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert renderers._at_once.borrowed_tokens == 0
    assert await renderers.render(order()) == Rendered("Hi")


async def test_a_process_that_died_is_replaced(renderers: Renderers) -> None:
    os.kill(await process_of(renderers), signal.SIGKILL)
    assert await renderers.render(order()) == Rendered("Hi")


async def test_a_process_that_dies_in_its_work_is_tried_twice() -> None:
    tried = []

    class Gone:
        exitcode = -11

    class Dying:
        async def run_sync(self, work: Callable[..., Any], *_: object, **__: object) -> None:
            await trio.lowlevel.checkpoint()
            tried.append(work)
            raise trio_parallel.BrokenWorkerError("died", Gone())

    renderers = Renderers(Dying(), 1.0)
    found = await renderers.render(order())
    assert found == Unrendered("its process ended with code -11")
    assert tried == [rendering.render] * 2
    await renderers.warm()


async def test_a_host_that_has_no_room_for_a_process_says_so() -> None:
    class Full:
        async def run_sync(self, *_: object, **__: object) -> None:
            await trio.lowlevel.checkpoint()
            raise BlockingIOError(11, "Resource temporarily unavailable")

    renderers = Renderers(Full(), 1.0)
    with pytest.raises(ServiceUnavailable, match="temporarily unavailable") as refused:
        await renderers.render(order())
    assert refused.value.retry_after == 5
    await renderers.warm()


async def test_two_are_rendered_at_once_and_others_wait() -> None:
    async with open_renderers(max_seconds=0.5) as renderers, trio.open_nursery() as nursery:
        await renderers.warm()
        for _ in range(MAX_RENDERINGS):
            nursery.start_soon(renderers.render, order(ENDLESS))
        await trio.testing.wait_all_tasks_blocked()
        assert renderers._at_once.available_tokens == 0
        assert await renderers.render(order()) == Rendered("Hi")


async def test_nothing_is_left_when_it_is_closed() -> None:
    async with open_renderers() as renderers:
        pids = {await process_of(renderers)}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
