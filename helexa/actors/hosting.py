"""What a node does beside its mailbox, because it takes time: bring a model up, run it, let it go."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio
from attrs import define, field

from helexa import logs
from helexa.actors.admission import ModelGone
from helexa.actors.devices import Devices
from helexa.actors.model import LoadMoved, Model, ModelNews
from helexa.actors.place import Place
from helexa.actors.placing import Placing
from helexa.actors.ports import Desired, Library
from helexa.actors.preparing import prepare
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.errors import GaveUp, HelexaError, ModelBusy, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel
from helexa.messages import Emptied, Gone, NodeMessage, Prepare, Told, UnloadModel
from helexa.metrics import Metrics

log = logs.get("helexa.node")


@define(eq=False)
class Hosting:
    """It decides nothing: what came of a model is told to the node."""

    _devices: Devices
    _placing: Placing
    _library: Library
    _desired: Desired
    _metrics: Metrics
    _policy: RestartPolicy
    _drain_seconds: float
    _tell: Callable[[NodeMessage], None]
    _nursery: trio.Nursery = field(init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """All that is begun here ends with it."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await self._placing.run()

    # -- a model's life --------------------------------------------------------------------------

    def begin(self, place: Place) -> None:
        """Bring its model up; told are the model's news, and Gone in the end."""
        self._nursery.start_soon(self._host, place)

    async def _host(self, place: Place) -> None:
        """One model's life on this node, from its files to the end of its actor."""
        error: HelexaError | None = None
        try:
            with place.scope:
                await self._run_model(place)
        except HelexaError as refusal:
            error = refusal
        except GaveUp as gave_up:
            error = ServiceUnavailable(str(gave_up))
        except Exception as bug:  # one model's bug must not take the node down
            log.exception("model ended by a bug", bug, model=place.entry.id)
            error = ServiceUnavailable(f"model {place.entry.id} ended by an internal error")
        self._news(place, Gone(error))

    async def _run_model(self, place: Place) -> None:
        entry, uuids = place.entry, self._devices.uuids(place.allowed_devices)
        self._desired.loading(entry.id, entry.source, uuids, asked=place.by == "operator")
        await self._desired.saved()  # a load that ends the process must be found marked
        if place.by != "request" or entry.download == "on_demand":
            await self._library.fetch(entry, self._show_fetch(place))
        known = await self._library.known(entry)
        hosted, device = await self._placing.place(place, known)
        place.model = model = Model(hosted, device, partial(self._news, place))
        await keep_running(f"model {entry.id}", model.run, self._policy, on_crash=self._count_crash)

    def _show_fetch(self, place: Place) -> Callable[[str, int, int], None]:
        """Progress of a download, told from its thread."""
        token = trio.lowlevel.current_trio_token()

        def show(phase: str, done: int, total: int) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._news, place, LoadMoved(place.entry.id, done, total))

        return show

    def _news(self, place: Place, what: ModelNews | Gone) -> None:
        self._tell(Told(place, what))

    def _count_crash(self, actor: str) -> None:
        self._metrics.restarts.labels("model").inc()

    def prepare(self, request: Prepare) -> None:
        """Make the prompts of a request."""
        self._nursery.start_soon(prepare, self._library, request)

    def touch(self, entry: CatalogueModel) -> None:
        """The store is to know that the model was used."""
        self._nursery.start_soon(self._library.touch, entry)

    # -- its end ---------------------------------------------------------------------------------

    def drain(self, place: Place, model: Model) -> None:
        """Let the model go once its answers have ended."""
        self._nursery.start_soon(self._drain, place, model)

    async def _drain(self, place: Place, model: Model) -> None:
        try:
            await model.drain(self._drain_seconds)
        except (ModelGone, HelexaError):  # it crashed meanwhile: it need not come back
            place.scope.cancel()
        model.leave()

    def empty(self, place: Place, model: Model, request: UnloadModel) -> None:
        """Have the model admit nobody any more if it is idle: Emptied is told, else the request fails."""
        self._nursery.start_soon(self._empty, place, model, request)

    async def _empty(self, place: Place, model: Model, request: UnloadModel) -> None:
        """The model's own door has the word."""
        try:
            await model.close_if_idle()
        except ModelBusy as busy:
            request.reply.fail(busy)
        except (ModelGone, HelexaError):
            request.reply.fail(ModelBusy(f"model {request.model} is leaving or recovering"))
        else:
            self._tell(Emptied(place, request))

    def freed(self) -> None:
        """Memory came free: those that made room for others may have it back."""
        self._placing.freed()
