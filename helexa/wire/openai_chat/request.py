"""A chat request as a whole, in both directions."""

from attrs import field, frozen

from helexa.conversation import Conversation, Json, Message
from helexa.errors import InvalidRequest
from helexa.wire.answer import Answer
from helexa.wire.exchange import Reply
from helexa.wire.fields import Fields
from helexa.wire.format import read_format, write_format
from helexa.wire.openai_chat.messages import read_message, write_messages
from helexa.wire.openai_chat.tools import read_tools, write_tools
from helexa.wire.openai_chat.writer import StreamWriter, write_answer
from helexa.wire.places import Places, tool_places
from helexa.wire.request import MAX_MESSAGES, MAX_TOKENS, check_labels, read_model
from helexa.wire.sampling import read_sampling, read_top_logprobs, write_sampling
from helexa.wire.thinking import read_template_kwargs, read_thinking, write_thinking

MAX_CHOICES = 8


@frozen
class ChatRequest:
    """`include_usage` asks for a chunk of its own with the usage at the end of the stream;
    `legacy_calls` for tool calls in the form that came before tools."""

    conversation: Conversation
    stream: bool = False
    include_usage: bool = False
    legacy_calls: bool = False
    places: Places = field(factory=dict, eq=False)

    @property
    def passes(self) -> bool:
        return True

    def whole(self, answer: Answer, reply: Reply) -> bytes:
        return write_answer(answer, reply, legacy_calls=self.legacy_calls)

    def writer(self, reply: Reply) -> StreamWriter:
        return StreamWriter(reply, include_usage=self.include_usage, legacy_calls=self.legacy_calls)


def read_request(body: Json) -> ChatRequest:
    """The request in a parsed body (`helexa.wire.fields.parse_json`).  InvalidRequest names the field."""
    fields = Fields(body)
    refuse_what_cannot_be_done(fields)
    check_labels(fields)
    model, offered = read_model(fields), read_tools(fields)
    wanted, format_place = read_format(fields)
    conversation = Conversation(
        model=model,
        messages=read_messages(fields),
        tools=offered.tools,
        tool_choice=offered.choice,
        format=wanted,
        thinking=read_thinking(fields),
        sampling=read_sampling(fields, read_top_logprobs(fields)),
        max_tokens=read_max_tokens(fields),
        n=fields.integer("n", 1, MAX_CHOICES) or 1,
        template_kwargs=tuple(read_template_kwargs(fields)),
        notes=offered.notes,
    )
    return ChatRequest(
        conversation,
        stream=fields.flag("stream") or False,
        include_usage=read_include_usage(fields),
        legacy_calls=offered.legacy,
        places={**tool_places(offered.schemas), **format_place},
    )


def refuse_what_cannot_be_done(fields: Fields) -> None:
    """A wish for what is not text is refused in words; it is never dropped in silence."""
    if fields.get("modalities") not in (None, [], ["text"]):
        fields.refuse("modalities", 'must be ["text"]: only text is generated')
    if fields.has("audio"):
        fields.refuse("audio", "is not supported: only text is generated")
    if fields.has("web_search_options"):
        fields.refuse("web_search_options", "is not supported: nothing is fetched from the network")


def read_messages(fields: Fields) -> tuple[Message, ...]:
    messages = fields.objects("messages", MAX_MESSAGES)
    if not messages:
        fields.refuse("messages", "is required and must be a list of at least one message")
    return tuple(read_message(message) for message in messages)


def read_max_tokens(fields: Fields) -> int | None:
    newer = fields.integer("max_completion_tokens", 1, MAX_TOKENS)
    older = fields.integer("max_tokens", 1, MAX_TOKENS)
    return older if newer is None else newer


def read_include_usage(fields: Fields) -> bool:
    options = fields.object("stream_options") or Fields({})
    options.flag("include_obfuscation")  # padding against those who listen in; there is none here
    return options.flag("include_usage") or False


# -- the other direction -----------------------------------------------------------------------------


def write_request(
    conversation: Conversation, *, stream: bool = False, include_usage: bool = False
) -> Json:
    """InvalidRequest for a conversation that goes on with texts: chat completions know messages."""
    if conversation.texts or conversation.prompt_logprobs is not None:
        raise InvalidRequest("Chat completions cannot go on with a bare text.", param="prompt")
    body: dict[str, Json] = {
        "model": conversation.model,
        "messages": [json for message in conversation.messages for json in write_messages(message)],
        **write_tools(conversation.tools, conversation.tool_choice),
        **write_format(conversation.format),
        **write_thinking(conversation.thinking, conversation.template_kwargs),
        **write_sampling(conversation.sampling),
    }
    if conversation.max_tokens is not None:
        body["max_tokens"] = conversation.max_tokens
    if conversation.n != 1:
        body["n"] = conversation.n
    if stream:
        body["stream"] = True
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    return body
