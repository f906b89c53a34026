"""What the node's own listener offers: the answers of models that are loaded already."""

from contextlib import aclosing

from attrs import frozen

from helexa.accounts.keys import Key
from helexa.actors.admission import ModelGone
from helexa.actors.node import Node
from helexa.conversation import Conversation, Events
from helexa.errors import ServiceUnavailable
from helexa.loads import Loads
from helexa.nodes.asked import Asked
from helexa.trace import Trace


@frozen
class Here:
    """Placing and loading models is for gateways and operators; here nothing is loaded on demand."""

    node: Node
    loads: Loads
    tick_seconds: float

    async def generate(self, asked: Asked, trace: Trace) -> Events:
        """The answer's events, with Progress while it waits for its prompt or a slot."""
        conversation = asked.conversation
        model = self.loads.id_of(conversation.model)
        known = await self.node.loaded(model)
        trace.model = model
        preparing = self.node.prepare(known, conversation, trace.principal)
        async with aclosing(preparing.waiting(self.tick_seconds)) as waiting:
            async for progress in waiting:
                yield [progress]
        prompts = await preparing.reply.wait()
        try:
            answer = self.node.generate(known, conversation, prompts, trace)
            async with aclosing(answer) as batches:
                async for batch in batches:
                    yield batch
        except ModelGone:
            raise ServiceUnavailable(
                f"model {model} was unloaded while this request waited for it", retry_after=2
            ) from None

    async def count(self, conversation: Conversation, key: Key) -> int:
        known = await self.node.loaded(self.loads.id_of(conversation.model))
        return await self.node.count(known, conversation, key.principal)
