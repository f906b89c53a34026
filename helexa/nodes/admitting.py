"""An `openai` upstream behind lines of ours: it takes whatever comes and says nothing of who waits, so who
may ask it is decided here."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

import trio
from attrs import define, evolve, field

from helexa.actors.admission import Admission, Occupancy
from helexa.actors.place import Asker
from helexa.conversation import Events, Progress
from helexa.fleet.admission import Rules, Verdict
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.pace import FIRST_GUESS_TOKENS, Demand, Spent
from helexa.fleet.view import ModelView, NodeView
from helexa.nodes.asked import Prepared
from helexa.nodes.client import Client
from helexa.nodes.upstream import UpstreamPort
from helexa.trace import Trace

OnVerdict = Callable[[str, str, Verdict], None]


@define(eq=False)
class AdmittingPort:
    """Every model that is asked for has an admission actor of its own, for as long as `run` does.

    `_width` is how many answers each of them is asked for at once, as it is told; 0 where that is as many
    as come.  `_on_verdict` hears model, node and what became of each request at the model's door.
    """

    upstream: UpstreamPort
    _width: int
    _rules: Rules
    _max_wait_seconds: float
    _tick_seconds: float
    _on_verdict: OnVerdict
    _admissions: dict[str, Admission] = field(factory=dict, init=False)
    _nursery: trio.Nursery = field(init=False)

    @property
    def name(self) -> str:
        return self.upstream.name

    @property
    def client(self) -> Client:
        return self.upstream.client

    def occupancies(self) -> Iterator[tuple[str, Occupancy]]:
        """Of the models that were asked for."""
        for model, admission in self._admissions.items():
            yield model, evolve(admission.occupancy(), max_in_flight=self._width)

    # -- as every port -------------------------------------------------------------------------------

    async def look(self) -> NodeView:
        view = await self.upstream.look()
        return evolve(view, models=tuple(self._with_load(model) for model in view.models))

    async def tell(self, entry: CatalogueModel) -> None:
        await self.upstream.tell(entry)

    async def load(self, entry: CatalogueModel, by: Asker = "request") -> None:
        await self.upstream.load(entry, by)

    async def unload(self, model: str, *, if_idle: bool) -> None:
        await self.upstream.unload(model, if_idle=if_idle)

    async def generate(self, prepared: Prepared, trace: Trace) -> Events:
        """The answer, when its turn has come."""
        with self.place(prepared.entry.id, demand_of(prepared), trace) as turn:
            async with aclosing(turn) as waiting:
                async for progress in waiting:
                    yield [progress]
            async with aclosing(self.upstream.generate(prepared, trace)) as batches:
                async for batch in batches:
                    yield batch

    @contextmanager
    def place(
        self, model: str, demand: Demand, trace: Trace
    ) -> Iterator[AsyncGenerator[Progress, None]]:
        """A place in the line of `model` for one request: it may be asked once what this gives has ended.

        Busy and PrincipalBusy come of that as at a node's own line.
        """
        admission = self._admission(model)
        slot = admission.slot(trace.principal, trace.share, demand)
        try:
            yield admission.admit(slot, trace, self._tick_seconds)
        finally:
            slot.spent = spent_of(trace)
            admission.leave(slot)

    # -- the actors ----------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Another run begins with empty lines."""
        self._admissions.clear()
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def _admission(self, model: str) -> Admission:
        if model not in self._admissions:

            def heard(verdict: Verdict) -> None:
                self._on_verdict(model, self.name, verdict)

            made = Admission(model, self._rules, self._max_wait_seconds, heard)
            self._admissions[model] = made
            self._nursery.start_soon(made.run)
        return self._admissions[model]

    def _with_load(self, model: ModelView) -> ModelView:
        """What the fleet plans with: how busy it is with what went through this gateway."""
        load = dict(self.occupancies()).get(model.entry.id)
        if load is None:
            return model
        return evolve(
            model,
            in_flight=load.in_flight,
            queue_depth=load.queue_depth,
            service_seconds=load.service_seconds,
            width=load.max_in_flight,
        )


def demand_of(prepared: Prepared) -> Demand:
    most = prepared.max_tokens or round(FIRST_GUESS_TOKENS)
    return Demand(prepared.num_tokens, prepared.asked.conversation.num_answers, most)


def spent_of(trace: Trace) -> Spent | None:
    usage = trace.usage
    if usage is None:
        return None
    return Spent(max(0, usage.prompt_tokens - usage.cached_tokens), usage.completion_tokens)
