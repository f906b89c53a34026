"""What a node learned of its models: how fast each reads a prompt, and what bounded its context last."""

from collections.abc import Callable
from functools import partial

import trio
from attrs import define, evolve, field

from helexa import logs
from helexa.fleet.auto import Speeds
from helexa.fleet.lessons import Lesson, Lessons
from helexa.fleet.limits import PrefillRate, Terms, settled

log = logs.get("helexa.node")

KEEP_SECONDS = 30.0  # what is learned with every answer is written this often


@define(eq=False)
class Learned:
    """By the model's id; it outlives the model's loads, and the process as far as it was written."""

    _lessons: Lessons = field(factory=Lessons)
    _changed: trio.Event = field(factory=trio.Event, init=False)
    _speeds: dict[str, Speeds] = field(factory=dict, init=False)  # kept by the engine, per machine

    def rate(self, model: str) -> PrefillRate:
        return self._lessons.of(model).rate or PrefillRate()

    def prefilled(self, model: str, tokens: int, seconds: float) -> None:
        """So many tokens of a prompt were computed in so many seconds."""
        self._learn(evolve(self._of(model), rate=self.rate(model).after(tokens, seconds)))

    def measured(self, model: str, speeds: Speeds) -> None:
        """How fast the device of `model` is with its weights in each form."""
        self._speeds[model] = speeds

    def speeds(self, model: str) -> Speeds:
        return self._speeds.get(model, {})

    def promise(self, model: str, terms: Terms) -> None:
        """The model is loaded on these terms, and keeps them as long as it is."""
        self._learn(evolve(self._of(model), terms=terms))

    def last(self, model: str, stated: Terms) -> Terms | None:
        """The last terms, if the operator and the files still say the same."""
        terms = self._of(model).terms
        return terms if terms is not None and terms.stated == stated.stated else None

    def estimate(self, model: str, now: Terms) -> Terms:
        """What a model shows that is not loaded, where a load would now find the terms `now`."""
        terms = settled(self._of(model).terms, now)
        self._learn(evolve(self._of(model), terms=terms))
        return terms

    async def keep(
        self,
        write: Callable[[Lessons], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Write what changes, now and then and at the end, until cancelled.  A failed write is logged."""
        task_status.started()
        try:
            while True:
                await self._changed.wait()
                await trio.sleep(KEEP_SECONDS)
                self._changed = trio.Event()
                with trio.CancelScope(shield=True):  # two writers would mix up their order
                    await trio.to_thread.run_sync(partial(written, write, self._lessons))
        finally:
            if self._changed.is_set():
                written(write, self._lessons)

    def _of(self, model: str) -> Lesson:
        return self._lessons.of(model)

    def _learn(self, lesson: Lesson) -> None:
        if lesson != self._of(lesson.model):
            self._lessons = self._lessons.after(lesson)
            self._changed.set()


def written(write: Callable[[Lessons], None], lessons: Lessons) -> None:
    try:
        write(lessons)
    except OSError as error:
        log.error("what was learned of the models is not saved", reason=error.strerror)
