"""One request on its way to a node: what was asked, neutrally and as it came."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import evolve, field, frozen

from helexa.accounts.keys import ANONYMOUS_KEY, Key
from helexa.conversation import Conversation, Json
from helexa.fleet.catalogue import CatalogueModel
from helexa.text.prompt import Prompt

Dialect = Literal["chat", "completions", "responses", "messages"]


@frozen
class Asked:
    """`conversation` says all that the request means; `body` is the request itself, parsed.

    `passes` tells whether a server of the same dialect would understand the body as it is: not where
    the gateway's own memory is part of it (a response that is continued or to be kept).
    `wishes` are the headers that say how to answer (`x-include-thinking`, `anthropic-version`, ...).
    `session` names what the client is working on, "" if nothing tells: whoever answered it before has
    its prompt cached.  `body_bytes` is the length of the body as it came.  `key` tells what the
    client may do.
    """

    dialect: Dialect
    conversation: Conversation
    body: Mapping[str, Json]
    stream: bool
    passes: bool = True
    wishes: tuple[tuple[str, str], ...] = ()
    session: str = ""
    body_bytes: int = 0
    key: Key = ANONYMOUS_KEY

    def of_model(self, model: str) -> "Asked":
        """The same by the model's own id, if it was asked for by an alias."""
        if self.conversation.model == model:
            return self
        return evolve(self, conversation=evolve(self.conversation, model=model))


@frozen(eq=False)
class Prepared:
    """What the gateway knows of a request before it goes anywhere.

    `entry` is the catalogue's.  `prompts` are there where this host has the model's tokenizer; else
    `num_tokens` is an estimate from the bytes of the body.  `max_tokens` is the hard stop of each
    answer, None for the model's own.
    """

    asked: Asked
    entry: CatalogueModel
    num_tokens: int
    prompts: Sequence[Prompt] | None = field(default=None, repr=False)
    known: Any = field(default=None, repr=False)  # `fleet.known.Known`, with the prompts
    max_tokens: int | None = None

    @property
    def longest_prompt(self) -> int:
        """In tokens; 0 where they were not counted."""
        return max((len(prompt.ids) for prompt in self.prompts or ()), default=0)

    @property
    def exact(self) -> bool:
        return self.prompts is not None
