"""From conversations to prompts, off the event loop: order, render, tokenise.

Templates are rendered in processes (`renderers`), all else in worker threads.
"""

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any, TypeVar

import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.conversation import Conversation
from helexa.prompters import Files
from helexa.renderers import Renderers
from helexa.text.prompt import Prompt
from helexa.text.prompter import Prompter
from helexa.text.render import Rendered, Unrendered
from helexa.text.template import fallback, plain, size_of

T = TypeVar("T")

MAX_PROMPTS = 4  # written and tokenised at once
LONG_CHARACTERS = 512 * 1024  # a prompt above it is one of the long, of which there is one at once
KEPT_BYTES = 32 * 1024 * 1024
TOKEN_BYTES = 40  # of an id in a tuple

log = logs.get("helexa.prompts")


@frozen
class Order:
    """What is to be rendered, and what tells it from every other."""

    data: bytes
    digest: bytes


@define(eq=False)
class Kept:
    """The prompts made last, by who had them made: who has one counted sends it next."""

    most_bytes: int = KEPT_BYTES
    num_bytes: int = field(default=0, init=False)
    _prompts: OrderedDict[object, Prompt] = field(factory=OrderedDict, init=False)

    def get(self, key: object) -> Prompt | None:
        found = self._prompts.get(key)
        if found is not None:
            self._prompts.move_to_end(key)
        return found

    def put(self, key: object, prompt: Prompt) -> None:
        if key not in self._prompts:
            self._prompts[key] = prompt
            self.num_bytes += bytes_of(prompt)
        while self.num_bytes > self.most_bytes:
            _, oldest = self._prompts.popitem(last=False)
            self.num_bytes -= bytes_of(oldest)


def bytes_of(prompt: Prompt) -> int:
    return sys.getsizeof(prompt.text) + TOKEN_BYTES * len(prompt.ids)


@define(eq=False)
class Prompts:
    _renderers: Renderers
    _kept: Kept = field(factory=Kept, init=False)
    _short: trio.CapacityLimiter = field(
        factory=partial(trio.CapacityLimiter, MAX_PROMPTS), init=False
    )
    _long: trio.CapacityLimiter = field(factory=partial(trio.CapacityLimiter, 1), init=False)

    async def make(
        self,
        prompter: Prompter,
        files: Files,
        conversation: Conversation,
        most_tokens: int,
        salt: str,
    ) -> tuple[Prompt, ...]:
        """One prompt for the messages, or one for every text.

        What was made before is found by the same `salt` alone: else the time would tell what others sent.
        Raises PromptTooLong as soon as it is clear that one has more than `most_tokens`,
        TemplateRenderFailed, VisionUnsupported, InvalidRequest, ServiceUnavailable.
        """
        work = partial(self.work, conversation)
        if conversation.texts:
            return await work(texts, prompter, conversation, most_tokens)
        order = await work(order_of, prompter, conversation, most_tokens)
        if order is None:
            rendered = await work(plain, conversation)
            return (await work(prompter.prompt, rendered, most_tokens),)
        key = (files, salt, order.digest)
        prompt = self._kept.get(key)
        if prompt is None:
            rendered = await self._render(order, conversation)
            prompt = await work(prompter.prompt, rendered, most_tokens)
            self._kept.put(key, prompt)
        return (prompt,)

    async def _render(self, order: Order, conversation: Conversation) -> Rendered:
        rendered = await self._renderers.render(order.data)
        if isinstance(rendered, Unrendered):
            log.warning("template not rendered", model=conversation.model, reason=rendered.reason)
            return await self.work(conversation, fallback, conversation, rendered.reason)
        return rendered

    async def work(self, conversation: Conversation, work: Callable[..., T], *args: Any) -> T:
        """Work on a conversation in a thread; a long one waits for long ones alone."""
        limiter = self._long if size_of(conversation) > LONG_CHARACTERS else self._short
        return await trio.to_thread.run_sync(work, *args, limiter=limiter, abandon_on_cancel=True)


def texts(prompter: Prompter, conversation: Conversation, most_tokens: int) -> tuple[Prompt, ...]:
    return tuple(prompter.texts(conversation, most_tokens))


def order_of(prompter: Prompter, conversation: Conversation, most_tokens: int) -> Order | None:
    """Templates may write the date, so that an order is another one tomorrow."""
    data = prompter.order(conversation, most_tokens)
    if data is None:
        return None
    return Order(data, hashlib.sha256(data + date.today().isoformat().encode()).digest())
