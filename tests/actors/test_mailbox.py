"""Questions are answered once, refused when there are too many, and never forgotten."""

import pytest
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from helexa import logs
from helexa.actors.mailbox import Mailbox, Request
from helexa.errors import ActorDown, Busy, ModelNotFound


@frozen(eq=False)
class Greet(Request[str]):
    name: str


@frozen
class Crash:
    pass


Message = Greet | Crash


def mailbox(size: int = 8) -> Mailbox[Message]:
    return Mailbox("greeter", size)


def greet(message: Message) -> None:
    match message:
        case Greet("ghost"):
            raise ModelNotFound("nobody of that name")
        case Greet("slow"):
            pass  # handed to a slow task: answered later, or never
        case Greet(name):
            message.reply.set(f"hello {name}")
        case Crash():
            raise RuntimeError("boom")


async def test_a_question_gets_its_answer(autojump_clock: object, nursery: trio.Nursery) -> None:
    box = mailbox()
    nursery.start_soon(box.serve, greet)
    assert await box.ask(Greet("world")) == "hello world"


async def test_an_actor_at_rest_answers_in_the_step_of_its_asker(nursery: trio.Nursery) -> None:
    box, greeted = mailbox(), Greet("world")
    nursery.start_soon(box.serve, greet)
    await wait_all_tasks_blocked()
    box.post(greeted)
    assert greeted.reply.given
    assert await greeted.reply.wait() == "hello world"


async def test_what_comes_while_an_actor_works_is_handled_when_it_is_done(
    nursery: trio.Nursery,
) -> None:
    box: Mailbox[str] = Mailbox("writer")
    written: list[str] = []

    def write(word: str) -> None:
        if word == "first":
            box.tell("second")
        written.append(word)

    nursery.start_soon(box.serve, write)
    await wait_all_tasks_blocked()
    box.tell("first")
    assert written == ["first", "second"]


async def test_an_actor_works_in_its_own_context_whoever_brings_the_message(
    nursery: trio.Nursery,
) -> None:
    box: Mailbox[str] = Mailbox("logger")
    seen: list[str] = []
    nursery.start_soon(box.serve, lambda word: seen.append(logs.request_id.get()))
    await wait_all_tasks_blocked()
    logs.request_id.set("req_1")
    box.tell("word")
    assert seen == [""]


async def test_an_expected_error_answers_the_asker_and_the_actor_lives_on(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    box = mailbox()
    nursery.start_soon(box.serve, greet)
    with pytest.raises(ModelNotFound):
        await box.ask(Greet("ghost"))
    assert await box.ask(Greet("world")) == "hello world"


async def test_a_crash_on_another_message_fails_what_a_slow_task_still_held(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    box = mailbox()
    failed = trio.Event()

    async def serve() -> None:
        with pytest.raises(RuntimeError):
            await box.serve(greet)

    async def ask_slowly() -> None:
        with pytest.raises(ActorDown):
            await box.ask(Greet("slow"))
        failed.set()

    nursery.start_soon(serve)
    nursery.start_soon(ask_slowly)
    await wait_all_tasks_blocked()
    box.tell(Crash())
    await failed.wait()


async def test_what_is_queued_waits_for_the_next_life(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    box = mailbox()
    box.tell(Crash())
    greeted = Greet("world")
    box.post(greeted)
    with pytest.raises(RuntimeError):
        await box.serve(greet)
    assert not greeted.reply.given
    nursery.start_soon(box.serve, greet)
    assert await greeted.reply.wait() == "hello world"


async def test_too_many_questions_are_refused_but_nothing_told_is_lost() -> None:
    box = mailbox(1)
    box.post(Greet("a"))
    with pytest.raises(Busy):
        box.post(Greet("b"))
    box.tell(Crash())
    with pytest.raises(RuntimeError):
        await box.serve(greet)


async def test_nothing_is_done_for_an_asker_who_left(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    box, greeted = mailbox(), Greet("world")
    with trio.move_on_after(1):
        await box.ask(greeted)
    nursery.start_soon(box.serve, greet)
    await wait_all_tasks_blocked()
    assert not greeted.reply.given


async def test_a_closed_mailbox_fails_those_who_wait_and_those_who_come() -> None:
    box, waiting = mailbox(), Greet("a")
    box.post(waiting)
    box.close()
    with pytest.raises(ActorDown):
        await waiting.reply.wait()
    with pytest.raises(ActorDown):
        box.post(Greet("b"))
    box.tell(Crash())  # told to nobody, harmlessly


async def test_a_wait_that_was_cancelled_can_be_taken_up_again(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    box, greeted = mailbox(), Greet("world")
    box.post(greeted)
    with trio.move_on_after(1):
        await greeted.reply.wait()
    nursery.start_soon(box.serve, greet)
    assert await greeted.reply.wait() == "hello world"
