"""A Responses request as a whole, in both directions."""

from collections.abc import Iterator

from attrs import frozen

from helexa.conversation import Conversation, Json, Message, Text
from helexa.errors import InvalidRequest, ResponseNotFound
from helexa.wire.answer import Answer
from helexa.wire.exchange import Reply
from helexa.wire.fields import MAX_JSON_BYTES, Fields
from helexa.wire.openai_chat.request import read_include_usage
from helexa.wire.openai_responses.asked import Asked
from helexa.wire.openai_responses.choice import read_tool_choice, write_tool_choice
from helexa.wire.openai_responses.items import ItemReader, write_items
from helexa.wire.openai_responses.response import write_answer
from helexa.wire.openai_responses.settings import (
    read_drawn,
    read_echo,
    read_includes,
    read_reasoning,
    read_text_format,
    read_truncation,
    write_drawn,
    write_reasoning,
    write_text,
)
from helexa.wire.openai_responses.stored import Past, Stored
from helexa.wire.openai_responses.summary import ask_for_summary
from helexa.wire.openai_responses.tools import Toolbox, read_toolbox, write_tool
from helexa.wire.openai_responses.writer import StreamWriter
from helexa.wire.places import Places, tool_places
from helexa.wire.request import MAX_TOKENS, read_model
from helexa.wire.thinking import read_template_kwargs

NOT_HERE = {
    "background": "must not be true: nothing is answered in the background, ask for a stream",
    "conversation": "must not be set: no conversations are kept here, use `previous_response_id`",
    "prompt": "must not be set: no prompts are kept here, send `input`",
}
# What is told again as it was sent, in bytes as JSON.
TOLD_AGAIN = {
    "input": 256 * 1024 * 1024,
    "text": 2 * MAX_JSON_BYTES,
    "reasoning": MAX_JSON_BYTES,
    "tool_choice": MAX_JSON_BYTES,
}


@frozen
class ResponsesRequest:
    asked: Asked
    stream: bool = False

    @property
    def conversation(self) -> Conversation:
        return self.asked.conversation

    @property
    def passes(self) -> bool:
        return self.asked.passes

    @property
    def places(self) -> Places:
        return self.asked.places

    def whole(self, answer: Answer, reply: Reply) -> bytes:
        return write_answer(self.asked, answer, reply)

    def writer(self, reply: Reply) -> StreamWriter:
        return StreamWriter(self.asked, reply)


def read_request(body: Json, past: Past | None = None) -> ResponsesRequest:
    """The request in a parsed body (`helexa.wire.fields.parse_json`).  InvalidRequest names the field.

    `past` is what the client may go on from, and where the response is kept unless the client says
    `store: false`; without it nothing is kept.  ResponseNotFound if what it goes on from is not there.
    """
    fields = Fields(body)
    refuse_what_is_not_here(fields)
    for key, most_bytes in TOLD_AGAIN.items():
        fields.bound(key, most_bytes)
    model, toolbox, includes = read_model(fields), read_toolbox(fields), read_includes(fields)
    choice, choice_notes = read_tool_choice(fields, toolbox)
    thinking, shown = read_reasoning(fields, includes)
    wanted, format_place = read_text_format(fields)
    earlier = read_earlier(fields, past)
    instructions, kept, reader = read_said(fields, toolbox, past, earlier)
    conversation = Conversation(
        model=model,
        messages=instructions + kept,
        tools=toolbox.tools,
        tool_choice=choice,
        format=wanted,
        thinking=thinking,
        sampling=read_drawn(fields, includes),
        max_tokens=fields.integer("max_output_tokens", 1, MAX_TOKENS),
        template_kwargs=tuple(read_template_kwargs(fields)),
        notes=(*toolbox.notes, *choice_notes, *reader.notes, *note_truncation(fields)),
    )
    is_kept = fields.flag("store") is not False
    asked = Asked(
        conversation,
        kept,
        toolbox,
        shown,
        echo=read_echo(fields),
        input=tuple(read_input(fields)),
        earlier=earlier.all_items if earlier else (),
        past=past if is_kept else None,
        passes=not (is_kept or earlier or reader.looked_back or reader.wants_summary),
        places={"messages": "input", **tool_places(toolbox.schemas), **format_place},
    )
    stream = fields.flag("stream") or False
    read_include_usage(fields)  # which it always is
    return ResponsesRequest(ask_for_summary(asked) if reader.wants_summary else asked, stream)


def refuse_what_is_not_here(fields: Fields) -> None:
    """A wish that cannot be met is refused in words; it is never dropped in silence."""
    fields.flag("background")
    for key, must in NOT_HERE.items():
        if fields.get(key) not in (None, False):
            fields.refuse(key, must)
    if (fields.integer("n", 1, 2**53) or 1) > 1:
        fields.refuse("n", "must be 1: a response has one answer")


def note_truncation(fields: Fields) -> Iterator[str]:
    if read_truncation(fields) == "auto":
        yield "truncation: what is too long for the model is refused, never cut"


def read_said(
    fields: Fields, toolbox: Toolbox, past: Past | None, earlier: Stored | None
) -> tuple[tuple[Message, ...], tuple[Message, ...], ItemReader]:
    """The instructions, and the messages that they stand before."""
    reader = ItemReader(toolbox, past)
    instructions = read_instructions(fields)
    reader.read(fields)
    kept = (*(earlier.messages if earlier else ()), *reader.messages)
    if not (instructions or kept):
        fields.refuse(
            "input", "is required and must be a string or a list of items that say something"
        )
    return instructions, kept, reader


def read_instructions(fields: Fields) -> tuple[Message, ...]:
    """Of this request alone: those of an earlier one are not carried over."""
    text = fields.text("instructions")
    return (Message("system", (Text(text),)),) if text else ()


def read_earlier(fields: Fields, past: Past | None) -> Stored | None:
    response_id = fields.text("previous_response_id")
    if not response_id:
        return None
    try:
        if past is not None:
            return past.find(response_id)
    except ResponseNotFound as error:
        error.param = "previous_response_id"
        raise
    raise ResponseNotFound("No responses are kept here.", param="previous_response_id")


def read_input(fields: Fields) -> list[Json]:
    """The items of this request, as they are told again."""
    given = fields.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    return [tell_again(item) for item in items]


def tell_again(item: dict[str, Json]) -> Json:
    if item.get("role") is None:
        return item
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        content = [{"type": kind, "text": content}]
    return {**item, "type": "message", "status": "completed", "content": content or []}


# -- the other direction -----------------------------------------------------------------------------


def write_request(conversation: Conversation, *, stream: bool = False) -> Json:
    """InvalidRequest for what a response cannot be: several answers, or one that goes on with a text."""
    if conversation.texts or conversation.prompt_logprobs is not None:
        raise InvalidRequest("A response cannot go on with a bare text.", param="prompt")
    if conversation.n != 1:
        raise InvalidRequest("A response has one answer: `n` must be 1.", param="n")
    body: dict[str, Json] = {
        "model": conversation.model,
        "input": [item for message in conversation.messages for item in write_items(message)],
        "store": False,
        **write_text(conversation.format),
        **write_reasoning(conversation.thinking, conversation.template_kwargs),
        **write_drawn(conversation.sampling),
    }
    if conversation.tools:
        body["tools"] = [write_tool(tool) for tool in conversation.tools]
    if conversation.tool_choice.mode != "auto" or conversation.tool_choice.only:
        body["tool_choice"] = write_tool_choice(conversation.tool_choice)
    if not conversation.tool_choice.parallel:
        body["parallel_tool_calls"] = False
    if conversation.max_tokens is not None:
        body["max_output_tokens"] = conversation.max_tokens
    if stream:
        body["stream"] = True
    return body
