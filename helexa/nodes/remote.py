"""A helexa or a reference neuron, over HTTP."""

from contextlib import suppress
from urllib.parse import quote, urlsplit

import orjson
import trio

from helexa import logs
from helexa.actors.place import Asker
from helexa.config.checks import is_url
from helexa.config.schema import RemoteNode
from helexa.conversation import Events, Json
from helexa.errors import HelexaError, ModelBusy, ServiceUnavailable, UpstreamMalformed
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.view import ModelView, NodeView
from helexa.nodes import relay, shapes
from helexa.nodes.asked import Prepared
from helexa.nodes.client import ANSWER_SECONDS, Client, Whole
from helexa.nodes.port import NodeLost
from helexa.nodes.refusals import operation_error
from helexa.nodes.shapes import Discovered
from helexa.nodes.told import parse_object
from helexa.store.source import at_home
from helexa.trace import Trace

log = logs.get("helexa.fleet")

DISCOVERY_SECONDS = 30.0  # between two looks at what rarely changes
TELL_SECONDS = 60.0  # a large vocabulary may have to be read for it
LOAD_SECONDS = 3600.0  # a large model from a slow disk; a lost node is noticed long before
UNLOAD_SECONDS = 600.0  # a node lets running answers finish for as long as its drain_seconds


class RemotePort:
    """`client` must live as long as the port."""

    def __init__(self, node: RemoteNode, client: Client) -> None:
        self.node = node
        self.client = client
        self._discovered = Discovered()
        self._discover_at = -float("inf")
        self._uptime_seconds = 0.0
        self._version = ""
        self._endpoints: dict[str, str] = {}  # of models that are loaded on a neuron

    @property
    def name(self) -> str:
        return self.node.name

    # -- looking -------------------------------------------------------------------------------------

    async def look(self) -> NodeView:
        try:
            return await self._look()
        except NodeLost:
            raise
        except HelexaError as error:  # an answer, but not one of a node
            raise NodeLost(told_by(self.name, error)) from None

    async def _look(self) -> NodeView:
        asked_at = trio.current_time()
        health = shapes.read_health((await self._get("/health")).body)
        models = shapes.read_models((await self._get("/models")).body)
        has_restarted = health.uptime_seconds < self._uptime_seconds
        self._uptime_seconds = health.uptime_seconds
        if has_restarted or trio.current_time() >= self._discover_at:
            await self._discover()
        self._forget_endpoints(models)
        return shapes.compose(
            self.name,
            self.node.kind,
            self.client.endpoint,
            health,
            models,
            self._discovered,
            self._version,
            asked_at,
        )

    async def _discover(self) -> None:
        """What rarely changes, or was not there yet; an old node that cannot tell it is one all the same."""
        version = await self._get_or_none("/version")
        found = await self._get_or_none("/discovery")
        self._version = str(shapes.read_version(version.body)) if version else ""
        self._discovered = shapes.read_discovery(found.body) if found else Discovered()
        if self._discovered.is_complete:
            self._discover_at = trio.current_time() + DISCOVERY_SECONDS

    async def tell(self, entry: CatalogueModel) -> ModelEntry | None:
        if self.node.kind != "helexa":
            return None
        source = quote(at_home(entry.source, self.name), safe="")
        path = f"/models/{quote(entry.id, safe='')}/entry?source={source}"
        answer = await self._get_or_none(path, TELL_SECONDS)
        return shapes.read_model(parse_object(answer.body)).entry if answer else None

    # -- loading -------------------------------------------------------------------------------------

    async def load(self, entry: CatalogueModel, by: Asker = "request") -> None:
        spec = load_spec(entry, self.node, by)
        answer = await self._post("/models/load", spec, LOAD_SECONDS)
        told = loaded_id(answer)
        if told and told != entry.id:
            raise ServiceUnavailable(
                f"node {self.name} serves the files of {entry.id} as {told}: "
                "give the model one id in both catalogues"
            )

    async def unload(self, model: str, *, if_idle: bool) -> None:
        if self.node.kind == "helexa":
            body: Json = {"model_id": model, "if_idle": if_idle}
        else:
            body = {"model_id": model}
            if if_idle:
                await self._refuse_if_busy(model)
        await self._post("/models/unload", body, UNLOAD_SECONDS)
        self._endpoints.pop(model, None)

    async def _refuse_if_busy(self, model: str) -> None:
        """A neuron knows no `if_idle` and kills what runs: it is asked what does, as late as can be."""
        health = shapes.read_health((await self._get("/health")).body)
        load = health.loads.get(model)
        if load is not None and (load.in_flight or load.queue_depth):
            raise ModelBusy(f"model {model} answers or has requests waiting on node {self.name}")

    # -- answering -----------------------------------------------------------------------------------

    def generate(self, prepared: Prepared, trace: Trace) -> Events:
        return relay.generate(self, prepared, trace)

    async def inference_endpoint(self, model: str) -> str:
        """Where requests for a loaded model go: to the node itself, or where a neuron says and may."""
        if self.node.kind == "helexa":
            return self.client.endpoint
        if model not in self._endpoints:
            self._endpoints[model] = self._allowed(await self._told_endpoint(model))
        return self._endpoints[model]

    async def _told_endpoint(self, model: str) -> str:
        answer = await self._get_or_none(f"/models/{quote(model, safe='')}/endpoint")
        with suppress(UpstreamMalformed):
            return shapes.read_endpoint(answer.body) if answer else ""
        return ""

    def _allowed(self, told: str) -> str:
        if told and may_be_used(told, self.node):
            return told
        if told:
            log.warning("inference endpoint not used", node=self.name, endpoint=told)
        return self.client.endpoint

    def _forget_endpoints(self, models: list[ModelView]) -> None:
        loaded = {view.entry.id for view in models if view.entry.loaded}
        self._endpoints = {model: url for model, url in self._endpoints.items() if model in loaded}

    # -- asking --------------------------------------------------------------------------------------

    async def _get(self, path: str) -> Whole:
        return self._accepted(await self.client.fetch("GET", path))

    async def _get_or_none(self, path: str, seconds: float = ANSWER_SECONDS) -> Whole | None:
        answer = await self.client.fetch("GET", path, seconds=seconds)
        return answer if answer.status == 200 else None

    async def _post(self, path: str, body: Json, seconds: float) -> Whole:
        headers = [("content-type", "application/json")]
        data = orjson.dumps(body)
        return self._accepted(await self.client.fetch("POST", path, headers, data, seconds=seconds))

    def _accepted(self, answer: Whole) -> Whole:
        if answer.status != 200:
            raise operation_error(self.name, answer)
        return answer


def load_spec(entry: CatalogueModel, node: RemoteNode, by: Asker) -> dict[str, Json]:
    """`on_demand` says that a gateway asks: the node fetches files only if it may.  `by` says for whom.

    A neuron knows models by their ids on the hub, and one harness.
    """
    spec: dict[str, Json] = {"model_id": entry.id}
    if entry.quant:
        spec["quant"] = entry.quant
    if entry.min_devices > 1:
        spec["tensor_parallel"] = entry.min_devices
    if node.kind == "neuron":
        return spec | {"harness": "candle"}
    if entry.source:
        spec["source"] = at_home(entry.source, node.name)
    asked: dict[str, Json] = {"download": entry.download, "on_demand": True, "by": by}
    return spec | {"harness": entry.harness} | asked


def loaded_id(answer: Whole) -> str:
    """The id that a load answers with; "" where it answers with something else."""
    with suppress(UpstreamMalformed):
        return parse_object(answer.body).exact("id")
    return ""


def may_be_used(url: str, node: RemoteNode) -> bool:
    """Whether the node's token may go to `url`: its own host as we know it, or one that is listed."""
    if url in (listed.rstrip("/") for listed in node.inference_endpoints):
        return True
    if not is_url(url):
        return False
    theirs, ours = urlsplit(url), urlsplit(node.endpoint)
    return (theirs.scheme, theirs.hostname) == (ours.scheme, ours.hostname)


def told_by(name: str, error: HelexaError) -> str:
    """The node's name stands in front, once."""
    return error.message if name in error.message else f"node {name}: {error.message}"
