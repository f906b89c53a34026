"""A model's way from conversation to prompt, bound to its directory."""

from pathlib import Path

from attrs import field, frozen

from helexa.conversation import Conversation, Image, ToolResult
from helexa.errors import VisionUnsupported
from helexa.escape import escape
from helexa.text.files import ChatFormat
from helexa.text.length import check_length, check_said
from helexa.text.template import render
from helexa.text.tokenizer import Tokenizer


@frozen
class Prompt:
    """`continues`: the prompt ends inside an assistant's message, which the answer goes on with.

    What was said does not show in a log that shows the value.
    """

    ids: tuple[int, ...] = field(repr=False)
    text: str = field(repr=False)
    continues: bool = False


@frozen(eq=False)
class Prompter:
    """Immutable, so that any number of worker threads may use it at once."""

    tokenizer: Tokenizer
    format: ChatFormat

    @classmethod
    def load(cls, path: Path, format: ChatFormat | None = None) -> "Prompter":
        """Read the tokeniser in the model directory `path`, and the format if not given.  StoreError."""
        return cls(Tokenizer.load(path / "tokenizer.json"), format or ChatFormat.load(path))

    def prompt(self, conversation: Conversation, most_tokens: int | None = None) -> Prompt:
        """Slow for a long conversation (about a second per megabyte): a worker thread's work.

        Raises TemplateRenderFailed, VisionUnsupported for pictures, and PromptTooLong as soon as it is
        clear that there are more than `most_tokens`; a prompt that is only a little longer is returned.
        """
        refuse_images(conversation)
        check_said(conversation, self.tokenizer, most_tokens)
        chosen = (self.format.tool_template if conversation.tools else None) or self.format.template
        rendered = render(chosen, conversation, self.format.special_tokens)
        check_length(rendered.text, self.tokenizer, most_tokens)
        ids = self.tokenizer.encode(rendered.text, add_special_tokens=rendered.is_plain)
        return Prompt(ids, rendered.text, rendered.continues)


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
