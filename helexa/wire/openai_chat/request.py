"""A chat request as a whole, in both directions."""

from collections.abc import Iterator

from attrs import frozen

from helexa.conversation import Conversation, Json, Message, Tool
from helexa.errors import MissingModelField
from helexa.wire.fields import Fields
from helexa.wire.openai_chat.messages import read_message, write_messages
from helexa.wire.openai_chat.sampling import read_sampling, write_sampling

MAX_MESSAGES = 4096
MAX_TOOLS = 1024
MAX_NAME_CHARACTERS = 512
MAX_CHOICES = 8
MAX_TOKENS = 2**53  # clamped to what the model's window has left

# What a chat template gets from elsewhere and no client may replace.
RESERVED_KWARGS = frozenset(
    {
        "messages",
        "tools",
        "template",
        "chat_template",
        "conversation",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
    }
)
NO_PARAMETERS: Json = {"type": "object", "properties": {}}


@frozen
class ChatRequest:
    """`include_usage` asks for a chunk of its own with the usage at the end of the stream."""

    conversation: Conversation
    stream: bool = False
    include_usage: bool = False


def read_request(body: Json) -> ChatRequest:
    """The request in a parsed body (`helexa.wire.fields.parse_json`).  InvalidRequest names the field."""
    fields = Fields(body)
    refuse_what_cannot_be_done(fields)
    conversation = Conversation(
        model=read_model(fields),
        messages=read_messages(fields),
        tools=tuple(read_tools(fields)),
        sampling=read_sampling(fields),
        max_tokens=read_max_tokens(fields),
        n=fields.integer("n", 1, MAX_CHOICES) or 1,
        template_kwargs=tuple(read_template_kwargs(fields).items()),
    )
    options = fields.object("stream_options") or Fields({})
    return ChatRequest(
        conversation,
        stream=fields.flag("stream") or False,
        include_usage=options.flag("include_usage") or False,
    )


def refuse_what_cannot_be_done(fields: Fields) -> None:
    """A wish that this version cannot grant is refused in words; it is never dropped in silence."""
    form = fields.object("response_format")
    if form and form.text("type") not in (None, "text"):
        fields.refuse(
            "response_format", "must be of type text: answers in JSON are not yet enforced"
        )
    if fields.get("tool_choice") not in (None, "auto", "none"):
        fields.refuse("tool_choice", "must be auto or none: a tool call cannot yet be forced")
    if fields.get("modalities") not in (None, [], ["text"]):
        fields.refuse("modalities", 'must be ["text"]: only text is generated')
    if fields.has("audio"):
        fields.refuse("audio", "is not supported: only text is generated")
    if fields.has("web_search_options"):
        fields.refuse("web_search_options", "is not supported: nothing is fetched from the network")
    if fields.has("functions"):
        fields.refuse("functions", "is not supported: send `tools`, which replaced it")


def read_model(fields: Fields) -> str:
    model = fields.text("model", MAX_NAME_CHARACTERS)
    if not model:
        raise MissingModelField("The request names no model: set `model`.", param="model")
    return model


def read_messages(fields: Fields) -> tuple[Message, ...]:
    messages = fields.objects("messages", MAX_MESSAGES)
    if not messages:
        fields.refuse("messages", "is required and must be a list of at least one message")
    return tuple(read_message(message) for message in messages)


def read_tools(fields: Fields) -> Iterator[Tool]:
    """The tools that the model is shown: none with `tool_choice` none."""
    tools = [read_tool(tool) for tool in fields.objects("tools", MAX_TOOLS) or ()]
    if fields.get("tool_choice") != "none":
        yield from tools


def read_tool(tool: Fields) -> Tool:
    if tool.required_text("type") != "function":
        tool.refuse("type", "must be function: other tools are not supported")
    function = tool.required_object("function")
    name = function.required_text("name", MAX_NAME_CHARACTERS)
    if not name:
        function.refuse("name", "must not be empty")
    parameters = function.json_object("parameters")
    return Tool(
        name, function.text("description"), NO_PARAMETERS if parameters is None else parameters
    )


def read_max_tokens(fields: Fields) -> int | None:
    newer = fields.integer("max_completion_tokens", 1, MAX_TOKENS)
    older = fields.integer("max_tokens", 1, MAX_TOKENS)
    return older if newer is None else newer


def read_template_kwargs(fields: Fields) -> dict[str, Json]:
    """What the chat template is told; the standard wishes about reasoning are told the same way."""
    kwargs: dict[str, Json] = {}
    effort, thinking = fields.text("reasoning_effort"), fields.flag("enable_thinking")
    if effort is not None:
        kwargs |= {"reasoning_effort": effort, "enable_thinking": effort != "none"}
    if thinking is not None:
        kwargs["enable_thinking"] = thinking
    own = fields.json_object("chat_template_kwargs") or {}
    for key in own:
        if key in RESERVED_KWARGS:
            fields.refuse("chat_template_kwargs", f"must not set `{key}`")
    return kwargs | own


def write_request(
    conversation: Conversation, *, stream: bool = False, include_usage: bool = False
) -> Json:
    body: dict[str, Json] = {
        "model": conversation.model,
        "messages": [json for message in conversation.messages for json in write_messages(message)],
        **write_sampling(conversation.sampling),
    }
    if conversation.tools:
        body["tools"] = [write_tool(tool) for tool in conversation.tools]
    if conversation.max_tokens is not None:
        body["max_tokens"] = conversation.max_tokens
    if conversation.n != 1:
        body["n"] = conversation.n
    if conversation.template_kwargs:
        body["chat_template_kwargs"] = dict(conversation.template_kwargs)
    if stream:
        body["stream"] = True
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    return body


def write_tool(tool: Tool) -> Json:
    function: dict[str, Json] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}
