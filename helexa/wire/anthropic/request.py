"""A Messages request as a whole."""

from collections.abc import Iterator

from attrs import field, frozen

from helexa.conversation import (
    Conversation,
    Json,
    JsonSchema,
    Message,
    Sampling,
    Thinking,
    Tool,
)
from helexa.wire.answer import Answer
from helexa.wire.anthropic.blocks import Note
from helexa.wire.anthropic.messages import read_messages
from helexa.wire.anthropic.tools import read_tool_choice, read_tools
from helexa.wire.anthropic.writer import StreamWriter, write_answer
from helexa.wire.exchange import Reply
from helexa.wire.fields import Fields
from helexa.wire.format import SCHEMA_NAME
from helexa.wire.places import Places, format_places, tool_places
from helexa.wire.request import MAX_TOKENS, read_model
from helexa.wire.sampling import MAX_TOKEN_ID, read_stops, read_top_p
from helexa.wire.thinking import MAX_EFFORT_CHARACTERS

ELSEWHERE = ("mcp_servers", "container")  # what would have to run at Anthropic


@frozen
class MessagesRequest:
    """`sealed`: thoughts come back unread, so that the client can return them."""

    conversation: Conversation
    stream: bool = False
    sealed: bool = False
    places: Places = field(factory=dict, eq=False)

    @property
    def passes(self) -> bool:
        return True

    def whole(self, answer: Answer, reply: Reply) -> bytes:
        return write_answer(answer, reply, sealed=self.sealed)

    def writer(self, reply: Reply) -> StreamWriter:
        return StreamWriter(reply, self.sealed)


def read_request(body: Json) -> MessagesRequest:
    """The request in a parsed body (`helexa.wire.fields.parse_json`).  InvalidRequest names the field.

    A request to count tokens is read the same way.  Betas and other fields that mean nothing here
    are not looked at; a missing `max_tokens` leaves the length to the model's limit.
    """
    fields = Fields(body)
    model = read_model(fields)
    said = list(read_messages(fields))
    offered = list(read_tools(fields))
    tools = tuple(tool for tool in offered if isinstance(tool, Tool))
    notes = [
        found for found in (*said, *offered, *read_elsewhere(fields)) if isinstance(found, Note)
    ]
    check_metadata(fields)
    wanted, format_place = read_format(fields)
    schemas = [
        f"tools[{i}].input_schema" for i, tool in enumerate(offered) if isinstance(tool, Tool)
    ]
    conversation = Conversation(
        model=model,
        messages=tuple(message for message in said if isinstance(message, Message)),
        tools=tools,
        tool_choice=read_tool_choice(fields, tools),
        format=wanted,
        thinking=read_thinking(fields),
        sampling=read_sampling(fields),
        max_tokens=fields.integer("max_tokens", 1, MAX_TOKENS),
        notes=tuple(notes),
    )
    return MessagesRequest(
        conversation,
        fields.flag("stream") or False,
        read_sealed(fields),
        places={"messages": "messages", **tool_places(schemas), **format_place},
    )


def read_elsewhere(fields: Fields) -> Iterator[Note]:
    for key in ELSEWHERE:
        if fields.get(key):
            yield Note(f"{key} was skipped: nothing is called from here")


def check_metadata(fields: Fields) -> None:
    metadata = fields.object("metadata")
    if metadata:
        metadata.text("user_id")


# -- how to answer ---------------------------------------------------------------------------------


def read_sampling(fields: Fields) -> Sampling:
    return Sampling(
        temperature=fields.number("temperature", 0, 2),
        top_p=read_top_p(fields),
        top_k=fields.integer("top_k", 0, MAX_TOKEN_ID),
        stop=read_stops(fields, "stop_sequences"),
    )


def read_thinking(fields: Fields) -> Thinking:
    """How much effort is said elsewhere."""
    config = fields.object("output_config") or Fields({})
    effort = config.text("effort", MAX_EFFORT_CHARACTERS)
    thinking = fields.object("thinking")
    if thinking is None:
        return Thinking(effort=effort)
    kind = thinking.required_text("type")
    budget = thinking.integer("budget_tokens", 0 if kind == "disabled" else 1, MAX_TOKENS)
    match kind:
        case "disabled":
            return Thinking(enabled=False, effort=effort)
        case "enabled" | "adaptive" | "between_tools":
            return Thinking(enabled=True, effort=effort, budget=budget, shown=True)
        case _:
            thinking.refuse("type", "must be one of enabled, adaptive, disabled")


def read_sealed(fields: Fields) -> bool:
    """Whether thoughts shall not be read, only kept and sent back, as Claude Code wants them."""
    thinking = fields.object("thinking")
    return thinking is not None and thinking.text("display") == "omitted"


def read_format(fields: Fields) -> tuple[JsonSchema | None, Places]:
    """The format of the answer: in `output_config`, or where the beta had it."""
    config = fields.object("output_config") or Fields({})
    wanted = config.object("format") or fields.object("output_format")
    if wanted is None:
        return None, {}
    if wanted.required_text("type") != "json_schema":
        wanted.refuse("type", "must be json_schema")
    schema = wanted.json_object("schema")
    if schema is None:
        wanted.refuse("schema", "is required and must be a JSON schema")
    form = JsonSchema(SCHEMA_NAME, schema, strict=True)
    return form, format_places(wanted.at("schema"), form)
