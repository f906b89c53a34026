"""From a conversation to what its chat template is asked to render.  Pure; `text.render` renders it."""

from typing import Any

import orjson
from attrs import field, frozen

from helexa.conversation import Conversation, Json, Reasoning, Text, Tool, ToolCall, ToolResult
from helexa.errors import TemplateRenderFailed
from helexa.escape import escape
from helexa.text.chat import ChatMessage, messages_of, tools_of, without_tools
from helexa.text.render import Rendered
from helexa.text.source import Reads, reads_of
from helexa.text.strict import (
    one_call_each,
    with_function_ids,
    with_short_ids,
    with_text_arguments,
    with_written_calls,
)

# Names by which transformers is told what to do: no variables of a template.
NOT_VARIABLES = frozenset(
    {
        "conversations",
        "messages",
        "tools",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "return_assistant_tokens_mask",
    }
)


@frozen
class ChatTemplate:
    """The source of a chat template, which may be anything, and what can be seen in it."""

    source: str
    reads: Reads = field(init=False)

    @reads.default
    def _read(self) -> Reads:
        return reads_of(self.source)


def offered(conversation: Conversation) -> tuple[Tool, ...]:
    """The tools that the model is told of: all, also where it may choose from a few only, so that
    prompts begin alike; and none where it may call none.
    """
    return () if conversation.tool_choice.mode == "none" else conversation.tools


def order_of(
    template: ChatTemplate, conversation: Conversation, variables: dict[str, Json]
) -> bytes:
    """What to render, for `text.render`.  `variables` are the model's own, which no client may set."""
    reads, tools = template.reads, tools_of(offered(conversation))
    messages = formed(reads, chat_of(conversation), tools)
    asked = {
        name: value for name, value in conversation.template_kwargs if name not in NOT_VARIABLES
    }
    own = variables | {"tools": tools if reads.tools else None}
    order = {
        "source": template.source,
        "messages": messages,
        "variables": thinking_variables(conversation) | asked | own,
        "parts": reads.parts,
        "thought_parts": reads.thought_parts,
    }
    return orjson.dumps(order)


def formed(
    reads: Reads, messages: list[ChatMessage], tools: list[Json] | None
) -> list[ChatMessage]:
    """The messages in the form that the template insists on."""
    if not reads.tools:
        return without_tools(messages, tools)
    if reads.one_call:
        messages = one_call_each(messages)
    if reads.text_arguments:
        messages = with_text_arguments(messages)
    if reads.short_ids:
        messages = with_short_ids(messages)
    if reads.function_ids:
        messages = with_function_ids(messages, per_turn=reads.function_ids == "per turn")
    return with_written_calls(messages, reads.writing) if reads.writing else messages


def thinking_variables(conversation: Conversation) -> dict[str, Json]:
    """`thinking` is what DeepSeek and Granite call it; `thinking_budget` is Seed's, 0 for no thoughts."""
    thinking = conversation.thinking
    enabled = bool(thinking.enabled)
    found: dict[str, Json] = {"enable_thinking": enabled, "thinking": enabled}
    if not enabled or thinking.budget is not None:
        found["thinking_budget"] = thinking.budget if enabled else 0
    return found if thinking.effort is None else found | {"reasoning_effort": thinking.effort}


def chat_of(conversation: Conversation) -> list[ChatMessage]:
    return messages_of(conversation) or [{"role": "user", "content": ""}]


# -- without a template ----------------------------------------------------------------------------


def fallback(conversation: Conversation, reason: str) -> Rendered:
    """The prompt where the template cannot be rendered.

    A request with tools is refused with TemplateRenderFailed, as its tools would be lost; any other
    gets the plain form.
    """
    if offered(conversation):
        raise TemplateRenderFailed(
            "The model's chat template cannot render this request, which carries tools: "
            f"{escape(reason)}",
            param="messages",
        )
    return plain(conversation)


def plain(conversation: Conversation) -> Rendered:
    """`role: text`, a blank line between, for models without a template."""
    messages = without_tools(chat_of(conversation), tools_of(offered(conversation)))
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    if is_open(messages[-1]):
        return Rendered("\n\n".join(lines), continues=True, is_plain=True)
    return Rendered("\n\n".join([*lines, "assistant:"]), is_plain=True)


def is_open(last: dict[str, Any]) -> bool:
    """Whether the last message is the beginning of the answer."""
    return last["role"] == "assistant" and bool(last["content"]) and not last.get("tool_calls")


def size_of(conversation: Conversation) -> int:
    """Characters that were said, more or less; quick."""
    size = 0
    for message in conversation.messages:
        for part in message.parts:
            match part:
                case Text(text) | Reasoning(text) | ToolCall(arguments=text):
                    size += len(text)
                case ToolResult(_, content):
                    size += sum(len(said.text) for said in content if isinstance(said, Text))
    return size + sum(map(len, conversation.texts))
