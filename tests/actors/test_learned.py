"""What a node learned of its models outlives the process, as far as it was written."""

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from helexa.actors.learned import KEEP_SECONDS, Learned
from helexa.fleet.lessons import MOST_MODELS, Lesson, Lessons
from helexa.fleet.limits import PrefillRate, Terms
from helexa.state import open_state

TERMS = Terms(
    32_768,
    kv_bytes_per_token=1024,
    free_mb=9000,
    spare_mb=100,
    prefill_rate=PrefillRate(900.0, True),
)


async def test_what_is_learned_is_written_now_and_then_and_found_after_a_restart(
    autojump_clock: object, nursery: trio.Nursery, tmp_path: Path
) -> None:
    with open_state(tmp_path / "state") as state:
        was_written = trio.Event()

        def write(lessons: Lessons) -> None:
            state.write_lessons(lessons)
            trio.from_thread.run_sync(was_written.set)

        learned = Learned(state.read_lessons())
        await nursery.start(learned.keep, write)
        learned.promise("m", TERMS)
        learned.prefilled("m", 1000, 2.0)
        await wait_all_tasks_blocked()
        assert state.read_lessons() == Lessons()
        began_at = trio.current_time()
        await was_written.wait()
        assert trio.current_time() - began_at >= KEEP_SECONDS
        again = Learned(state.read_lessons())
    assert again.rate("m") == PrefillRate(500.0, measured=True)
    assert again.last("m", TERMS) == TERMS
    assert again.estimate("m", TERMS).limit == TERMS.limit


async def test_what_was_learned_last_is_written_at_the_end(tmp_path: Path) -> None:
    with open_state(tmp_path / "state") as state:
        learned = Learned()
        async with trio.open_nursery() as nursery:
            await nursery.start(learned.keep, state.write_lessons)
            learned.prefilled("m", 1000, 2.0)
            nursery.cancel_scope.cancel()
        assert Learned(state.read_lessons()).rate("m").tokens_per_second == 500.0


async def test_a_disk_that_is_full_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(lessons: Lessons) -> None:
        raise OSError(28, "No space left on device")

    learned = Learned()
    async with trio.open_nursery() as nursery:
        await nursery.start(learned.keep, fail)
        learned.prefilled("m", 1000, 2.0)
        nursery.cancel_scope.cancel()
    assert "what was learned of the models is not saved" in caplog.text


def test_terms_that_the_operator_changed_are_not_taken_for_the_last_ones() -> None:
    learned = Learned(Lessons((Lesson("m", terms=TERMS),)))
    assert learned.last("m", Terms(32_768, kv_bytes_per_token=1024, max_context=100)) is None


def test_a_file_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    with open_state(tmp_path / "state") as state:
        (state.path / "learned.json").write_text("{")
        assert state.read_lessons() == Lessons()
        assert (state.path / "learned.unreadable").exists()


def test_no_more_models_are_remembered_than_a_host_has_ever_loaded() -> None:
    lessons = Lessons()
    for number in range(MOST_MODELS + 10):
        lessons = lessons.after(Lesson(f"m{number}"))
    assert len(lessons.lessons) == MOST_MODELS
    assert lessons.lessons[-1].model == f"m{MOST_MODELS + 9}"
