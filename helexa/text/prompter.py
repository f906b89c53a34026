"""A model's way from conversation to prompt, bound to its directory."""

from collections.abc import Iterator
from pathlib import Path

from attrs import evolve, frozen

from helexa.conversation import Conversation, Image, Json, ToolResult
from helexa.errors import InvalidRequest, VisionUnsupported
from helexa.escape import escape
from helexa.text.files import ChatFormat
from helexa.text.length import check_count, check_length, check_said
from helexa.text.markup import Markup
from helexa.text.prompt import Prompt
from helexa.text.render import Rendered
from helexa.text.template import ChatTemplate, offered, order_of
from helexa.text.tokenizer import Tokenizer

MAX_TEXTS_CHARACTERS = 8 * 1024 * 1024  # of all texts of a request
EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}  # beyond harmony's own


@frozen(eq=False)
class Prompter:
    """Immutable, so that any number of worker threads may use it at once; all it does is their work.

    A conversation becomes an order, which `text.render` renders in a process of its own, and that a
    prompt.
    """

    tokenizer: Tokenizer
    format: ChatFormat

    @classmethod
    def load(cls, path: Path, format: ChatFormat | None = None) -> "Prompter":
        """Read the tokeniser in the model directory `path`, and the format if not given.  StoreError."""
        return cls(Tokenizer.load(path / "tokenizer.json"), format or ChatFormat.load(path))

    def template(self, conversation: Conversation) -> ChatTemplate | None:
        chosen = self.format.tool_template if offered(conversation) else None
        return chosen or self.format.template

    def order(self, conversation: Conversation, most_tokens: int | None = None) -> bytes | None:
        """What to render; None for a model without a template.

        Raises VisionUnsupported for pictures, and PromptTooLong if there are surely more than
        `most_tokens`, whatever the template adds.
        """
        refuse_images(conversation)
        check_said(conversation, self.tokenizer, most_tokens)
        template = self.template(conversation)
        if template is None:
            return None
        return order_of(template, conversation, self._variables(conversation))

    def _variables(self, conversation: Conversation) -> dict[str, Json]:
        effort = conversation.thinking.effort
        own: dict[str, Json] = dict(self.format.special_tokens)
        if effort in EFFORTS and self.format.markup.tools == "harmony":
            own["reasoning_effort"] = EFFORTS[effort]
        return own

    def prompt(self, rendered: Rendered, most_tokens: int | None = None) -> Prompt:
        """Slow for a long conversation: about a second per megabyte.

        PromptTooLong as soon as it is clear that there are more than `most_tokens`; a prompt that is
        only a little longer is returned.
        """
        check_length(rendered.text, self.tokenizer, most_tokens)
        ids = self.tokenizer.encode(rendered.text, add_special_tokens=rendered.is_plain)
        return Prompt(ids, rendered.text, rendered.continues)

    # -- texts as they are -------------------------------------------------------------------------

    def texts(self, conversation: Conversation, most_tokens: int | None = None) -> Iterator[Prompt]:
        """One prompt for each text.  InvalidRequest for ids that are none, and too much at once."""
        if sum(map(len, conversation.texts)) > MAX_TEXTS_CHARACTERS:
            raise InvalidRequest(
                f"The texts of one request have {MAX_TEXTS_CHARACTERS} characters at most: send these "
                "in several requests.",
                param="prompt",
            )
        for i, text in enumerate(conversation.texts):
            if isinstance(text, str):
                check_length(text, self.tokenizer, most_tokens)
                # As transformers does it: with what the model expects around a text.
                ids = self.tokenizer.encode(text, add_special_tokens=True)
                if not ids:
                    path = f"prompt[{i}]"
                    raise InvalidRequest(f"`{path}` has no tokens for this model.", param=path)
                yield Prompt(ids, text, continues=True)
            else:
                check_count(len(text), most_tokens)
                self._check_ids(text, f"prompt[{i}]")
                yield Prompt(text, self._decode(text), continues=True)

    def _decode(self, ids: tuple[int, ...]) -> str:
        return b"".join(map(self.tokenizer.token_bytes, ids)).decode("utf-8", "replace")

    def _check_ids(self, ids: tuple[int, ...], path: str) -> None:
        wrong = next((id for id in ids if not 0 <= id < self.tokenizer.num_ids), None)
        if wrong is not None:
            raise InvalidRequest(
                f"`{path}` has {wrong}, which is no token of this model: they go from 0 to "
                f"{self.tokenizer.num_ids - 1}.",
                param=path,
            )


def constrained(
    tokenizer: Tokenizer, markup: Markup, conversation: Conversation, prompts: tuple[Prompt, ...]
) -> tuple[Prompt, ...]:
    """The prompts with what their answers must keep to: a form, and a budget of reasoning.

    InvalidRequest for a form that cannot be enforced.
    """
    from helexa.text.constraint import bounded, compile_constraint  # a gateway has no llguidance

    def compiled(prompt: Prompt) -> Prompt:
        form = compile_constraint(tokenizer, conversation, prompt.text, markup)
        return bounded(tokenizer, conversation, evolve(prompt, constraint=form), markup)

    return tuple(map(compiled, prompts))


def refuse_images(conversation: Conversation) -> None:
    for i, message in enumerate(conversation.messages):
        for part in message.parts:
            inner = part.content if isinstance(part, ToolResult) else (part,)
            if any(isinstance(said, Image) for said in inner):
                raise VisionUnsupported(
                    f"The model {escape(conversation.model)} reads text only.",
                    param=f"messages[{i}].content",
                    model_id=conversation.model,
                    suggestion="Leave the picture out, or describe it in words.",
                )
