"""The node actor: the only writer of which model is on which device of this host.

It keeps them in `places`, which decides what becomes of each; `hosting` runs them beside its mailbox, as
supervised tasks that tell what came of them.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import aclosing

import trio
from attrs import evolve

from helexa import logs
from helexa.actors.device import Device
from helexa.actors.devices import Devices
from helexa.actors.hosting import Hosting
from helexa.actors.learned import Learned
from helexa.actors.mailbox import Mailbox
from helexa.actors.place import Asker, AtStart, NodeStatus, Place
from helexa.actors.places import Places
from helexa.actors.placing import Placing
from helexa.actors.ports import Desired, Library
from helexa.actors.supervisor import RestartPolicy
from helexa.config.schema import Config
from helexa.conversation import ANONYMOUS, Conversation, Events, Principal
from helexa.engine.orders import Dtype
from helexa.errors import HelexaError, NotLoaded
from helexa.fleet.backoff import pause
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known
from helexa.fleet.pool import salt_of
from helexa.messages import (
    Emptied,
    FindModel,
    GetStatus,
    LoadModel,
    NodeMessage,
    Prepare,
    Told,
    UnloadModel,
)
from helexa.metrics import Metrics
from helexa.text.prompt import Prompt
from helexa.trace import Trace

log = logs.get("helexa.node")

KEEP_ALIVE_SECONDS = 10.0


def tick_seconds(config: Config) -> float:
    """How often a request that waits is told so: in time to open its stream, and to keep it alive."""
    return min(config.admission.stream_open_seconds or 1.0, KEEP_ALIVE_SECONDS)


class Node:
    """This host's devices and models, as one port: generate, load, unload, status."""

    def __init__(
        self,
        config: Config,
        devices: Sequence[tuple[Device, Dtype]],
        library: Library,
        desired: Desired,
        metrics: Metrics,
        policy: RestartPolicy = RestartPolicy(max_restarts=3, within=600.0, first_delay=1.0),
        learned: Learned | None = None,
    ) -> None:
        self.name = config.node.name
        self._config = config
        self._library = library
        self._mailbox: Mailbox[NodeMessage] = Mailbox(f"node {self.name}")
        there: dict[str, Place] = {}
        self._devices = Devices(config, devices, learned or Learned())
        self.choice = self._devices.choice  # how a load would keep a model's weights
        hosting = Hosting(
            self._devices,
            Placing(self._devices, there.values()),
            library,
            desired,
            metrics,
            policy,
            config.server.drain_seconds,
            self._mailbox.tell,
        )
        self._hosting = hosting
        self._places = Places(self.name, self._devices, hosting, desired, metrics, there)
        self._may_activate = trio.Event()
        self.activated = trio.Event()

    # -- what others call ------------------------------------------------------------------------

    async def status(self) -> NodeStatus:
        return await self._mailbox.ask(GetStatus())

    def load(
        self,
        entry: CatalogueModel,
        by: Asker = "request",
        devices: tuple[int, ...] = (),
        quant: str = "",
    ) -> LoadModel:
        """Begin or join a load; wait on the `reply` of what this returns."""
        entry = evolve(entry, quant=quant) if quant else entry
        request = LoadModel(entry, by, devices, quant)
        self._mailbox.post(request)
        return request

    async def unload(self, model: str, *, if_idle: bool = False) -> None:
        await self._mailbox.ask(UnloadModel(model, if_idle))

    @property
    def max_prompt_tokens(self) -> int:
        """The operator's bound on every prompt; 0 for none."""
        return self._config.limits.max_prompt_tokens

    def could_fit(self, known: Known) -> bool:
        """Whether the model would fit a device of this host that is otherwise empty."""
        return self._devices.could_fit(known)

    # -- a request, in the order of its calls ----------------------------------------------------

    async def loaded(self, model: str) -> Known:
        """What a loaded model was loaded with.  NotLoaded, or ServiceUnavailable while it recovers."""
        return (await self._mailbox.ask(FindModel(model))).hosted.known

    async def known(self, entry: CatalogueModel) -> Known:
        """What the model has where it was placed, else what its files say and a load would find.

        A HelexaError if neither is known.
        """
        try:
            return await self.loaded(entry.id)
        except NotLoaded:
            place = self._places.there.get(entry.id)
            if place and place.known and place.device:  # it comes, or goes
                return place.known
            known = await self._library.known(entry)
            return self._devices.estimated(known, self._places.there.values())

    def prepare(
        self, known: Known, conversation: Conversation, principal: Principal = ANONYMOUS
    ) -> Prepare:
        """Begin to make the prompts; wait on the `reply` of what this returns."""
        request = Prepare(known, conversation, self._salt(principal))
        self._mailbox.post(request)
        return request

    async def count(
        self, known: Known, conversation: Conversation, principal: Principal = ANONYMOUS
    ) -> int:
        """The tokens of the prompts that `prepare` makes, also of one that is too long."""
        return await self._library.count(known, conversation, self._salt(principal))

    def _salt(self, principal: Principal) -> str:
        return salt_of(principal, self._config.prefix_cache.share)

    async def generate(
        self,
        known: Known,
        conversation: Conversation,
        prompts: Sequence[Prompt],
        trace: Trace,
    ) -> Events:
        """Answer on the loaded model.  Raises ModelGone, before any token, when it was unloaded."""
        model = await self._mailbox.ask(FindModel(known.id))
        trace.node = self.name
        answer = model.generate(conversation, prompts, trace, tick_seconds(self._config))
        async with aclosing(answer) as batches:
            async for batch in batches:
                yield batch

    # -- the actor -------------------------------------------------------------------------------

    async def run(
        self,
        at_start: Callable[[], Sequence[AtStart]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve; once `activate` is called, bring up the models of `at_start` one after the other.

        It may crash and be run again: its models end with it and are brought up anew.
        """
        self._places.begin()
        wanted = []
        for start in at_start():
            if start.given_up:
                self._places.leave_alone(start.entry, start.given_up)
            else:
                wanted.append(start)
        self._places.missing.update({start.entry.id: "" for start in wanted})
        async with trio.open_nursery() as nursery:
            await nursery.start(self._hosting.run)
            nursery.start_soon(self._bring_up, wanted)
            task_status.started()
            await self._mailbox.serve(self._handle)

    def activate(self) -> None:
        """The listeners are bound: the models of the start may come up."""
        self._may_activate.set()

    def close(self) -> None:
        """Nobody will run this node again."""
        self._mailbox.close()

    async def _bring_up(self, wanted: Sequence[AtStart]) -> None:
        await self._may_activate.wait()
        missing = self._places.missing  # who is loaded or unloaded by somebody else leaves it
        for count in itertools.count(1):
            for start in wanted:
                if start.entry.id in missing:
                    await self._try(start)
            self.activated.set()
            if not any(start.entry.id in missing for start in wanted):
                return
            await trio.sleep(pause(count))

    async def _try(self, start: AtStart) -> None:
        model, missing = start.entry.id, self._places.missing
        try:
            await self._mailbox.ask(LoadModel(start.entry, "start", start.devices))
        except HelexaError as error:
            if model in missing and missing[model] != error.message:
                missing[model] = error.message
                log.error("model not brought up", model=model, reason=error.message)

    def _handle(self, message: NodeMessage) -> None:
        match message:
            case LoadModel():
                self._places.load(message)
            case UnloadModel():
                self._places.unload(message)
            case FindModel(model):
                message.reply.set(self._places.find(model))
            case Prepare():
                self._hosting.prepare(message)
            case GetStatus():
                message.reply.set(self._status())
            case Emptied(place, request):
                self._places.emptied(place, request)
            case Told(place, what):
                self._places.told(place, what)

    def _status(self) -> NodeStatus:
        missing, there = self._places.missing, self._places.there
        return NodeStatus(
            self._devices.status(),
            self._places.states(),
            tuple(m for m, why in missing.items() if not why and m not in there),
            {model: why for model, why in missing.items() if why},
            self.activated.is_set(),
        )
