"""An OpenAI-style server as a node: vLLM, SGLang, llama-server, Ollama and their like.

It has what it has: nothing is loaded or unloaded there.
"""

import trio

from helexa.actors.place import Asker
from helexa.config.schema import RemoteNode
from helexa.conversation import Events
from helexa.errors import HelexaError, NotLoaded, UpstreamError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.view import ModelView, NodeView
from helexa.nodes import relay
from helexa.nodes.asked import Prepared
from helexa.nodes.client import Client, Whole
from helexa.nodes.offers import read_offers
from helexa.nodes.port import NodeLost
from helexa.nodes.refusals import operation_error
from helexa.trace import Trace


class UpstreamPort:
    """`client` must be open for as long as the port is used."""

    def __init__(self, node: RemoteNode, client: Client) -> None:
        self.node = node
        self.client = client

    @property
    def name(self) -> str:
        return self.node.name

    async def look(self) -> NodeView:
        asked_at = trio.current_time()
        try:
            models = read_offers(self._accepted(await self.client.fetch("GET", "/v1/models")).body)
        except NodeLost:
            raise
        except HelexaError as error:  # an answer, but no list of models
            raise NodeLost(f"node {self.name}: {error.message}") from None
        return NodeView(
            self.name,
            "openai",
            self.client.endpoint,
            models=tuple(model for model in models if self._is_offered(model)),
            can_load=False,
            seen_at=asked_at,
        )

    async def tell(self, entry: CatalogueModel) -> None:
        """It offers a model or does not."""

    async def load(self, entry: CatalogueModel, by: Asker = "request") -> None:
        """Nothing is loaded there: what is not there already will not be."""
        raise NotLoaded(f"node {self.name} loads no models for others", param="model")

    async def unload(self, model: str, *, if_idle: bool) -> None:
        raise UpstreamError(f"node {self.name} unloads no models for others")

    def generate(self, prepared: Prepared, trace: Trace) -> Events:
        return relay.generate(self, prepared, trace)

    async def inference_endpoint(self, model: str) -> str:
        return self.client.endpoint

    def _is_offered(self, model: ModelView) -> bool:
        return not self.node.models or model.entry.id in self.node.models

    def _accepted(self, answer: Whole) -> Whole:
        if answer.status != 200:
            raise operation_error(self.name, answer)
        return answer
