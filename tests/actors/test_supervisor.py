"""What crashes comes back, later each time, until it has crashed too often."""

import pytest
import trio

from helexa.actors.supervisor import Intensity, RestartPolicy, keep_running
from helexa.errors import DevicePoisoned, GaveUp, StoreError
from helexa.service import Exit, ending


def test_intensity_backs_off_then_gives_up() -> None:
    intensity = Intensity(RestartPolicy(max_restarts=3, within=60, first_delay=1, max_delay=3))
    assert [intensity.crashed(now) for now in (0, 1, 2, 3)] == [1, 2, 3, None]


def test_intensity_forgets_old_crashes() -> None:
    intensity = Intensity(RestartPolicy(max_restarts=1, within=60, first_delay=1))
    assert [intensity.crashed(now) for now in (0, 61, 122)] == [1, 1, 1]


class Flaky:
    """Crashes `crashes` times, then returns."""

    def __init__(self, crashes: int, error: Exception | None = None) -> None:
        self.lives = 0
        self._crashes = crashes
        self._error = error or RuntimeError("boom")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.lives += 1
        task_status.started()
        await trio.lowlevel.checkpoint()
        if self.lives <= self._crashes:
            raise self._error


async def test_a_crash_restarts_after_a_growing_delay(autojump_clock: object) -> None:
    flaky, crashed = Flaky(crashes=3), []
    began = trio.current_time()
    await keep_running("flaky", flaky.run, RestartPolicy(first_delay=1), on_crash=crashed.append)
    assert flaky.lives == 4
    assert crashed == ["flaky"] * 3
    assert trio.current_time() - began == 1 + 2 + 4


async def test_too_many_crashes_give_up(autojump_clock: object) -> None:
    with pytest.raises(GaveUp):
        await keep_running("flaky", Flaky(99).run, RestartPolicy(max_restarts=2))


async def test_started_is_passed_on_once_even_when_the_first_life_ends_early(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    flaky = Flaky(crashes=2)
    await nursery.start(keep_running, "flaky", flaky.run, RestartPolicy())
    assert flaky.lives == 1


@pytest.mark.parametrize("error", [DevicePoisoned("illegal address"), StoreError("no such file")])
async def test_what_no_restart_can_help_passes_through_at_once(
    error: Exception, autojump_clock: object
) -> None:
    flaky = Flaky(99, ExceptionGroup("in a nursery", [error]))
    began = trio.current_time()
    with pytest.raises(type(error)):
        await keep_running("flaky", flaky.run, RestartPolicy())
    assert flaky.lives == 1
    assert trio.current_time() == began


@pytest.mark.parametrize("grouped", [False, True])
async def test_what_passes_through_keeps_its_cause_and_makes_no_circle(
    grouped: bool, autojump_clock: object
) -> None:
    poisoned = DevicePoisoned("illegal address")
    poisoned.__cause__ = RuntimeError("CUDA error")
    raised = ExceptionGroup("in a nursery", [poisoned]) if grouped else poisoned
    with pytest.raises(DevicePoisoned) as caught:
        await keep_running("flaky", Flaky(99, raised).run, RestartPolicy())
    assert caught.value is poisoned
    assert isinstance(poisoned.__cause__, RuntimeError)
    assert ending(ExceptionGroup("in the root", [poisoned]))[0] is Exit.DEVICE_POISONED


async def test_who_gives_up_says_what_went_wrong_last(autojump_clock: object) -> None:
    flaky = Flaky(99, ExceptionGroup("in a nursery", [RuntimeError("boom")]))
    with pytest.raises(GaveUp, match=r"flaky crashed too often: RuntimeError\('boom'\)"):
        await keep_running("flaky", flaky.run, RestartPolicy(max_restarts=1))
