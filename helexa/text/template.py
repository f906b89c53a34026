"""From a conversation to the text of its prompt, by the model's chat template."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from attrs import frozen

from helexa.conversation import Conversation, Reasoning, Text, ToolCall, ToolResult
from helexa.errors import TemplateRenderFailed
from helexa.escape import escape
from helexa.text.chat import ChatMessage, messages_of, simplified, tools_of, without_tools
from helexa.text.sandbox import Program

# A rendering may be this many characters longer than what it renders, and this many times as long.
SPARE_CHARACTERS = 1024 * 1024
GROWTH = 8
MAX_REASON_CHARACTERS = 300
THINKING_VARIABLES = frozenset({"enable_thinking", "thinking", "reasoning_effort"})
CONTINUE = "[[the answer goes on here]] "  # ends in a space to see whether a template strips


@frozen
class Rendered:
    """`continues`: the prompt ends inside an assistant's message, which the answer goes on with.

    `is_plain`: no template wrote it, so the tokeniser has to add what begins a text.
    """

    text: str
    continues: bool = False
    is_plain: bool = False


class ChatTemplate:
    """A chat template, compiled.  Immutable; one that does not compile fails when it is rendered."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._program: Program | None = None
        self._flaw = ""
        try:
            self._program = Program(source)
        except Exception as error:  # the source comes from outside and may make anything fail
            self._flaw = f"{type(error).__name__}: {error}"

    @property
    def reads_tools(self) -> bool:
        """Whether it says anything of tools; of one that does not compile, whether it mentions them."""
        return "tools" in (self._program.variables if self._program else self.source)

    @property
    def reads_thinking(self) -> bool:
        """Whether its model thinks before it speaks."""
        variables = self._program.variables if self._program else frozenset()
        marks = ("<think>", "reasoning_content")
        return bool(variables & THINKING_VARIABLES) or any(mark in self.source for mark in marks)

    def render(self, variables: Mapping[str, Any], max_size: int) -> str:
        if self._program is None:
            raise ValueError(self._flaw)
        return self._program.render(variables, max_size=max_size)


def render(
    template: ChatTemplate | None, conversation: Conversation, special_tokens: Mapping[str, str]
) -> Rendered:
    """The prompt of `conversation`.  A last message of the assistant is left open, to be continued.

    A template that fails gets a second try in the simplest form (no system message, user and assistant
    in turn).  If that fails too, a request with tools is refused with TemplateRenderFailed, as its
    tools would be lost; any other gets the plain form, as does one without a template.
    """
    messages = messages_of(conversation) or [{"role": "user", "content": ""}]
    if template is None:
        return plain(without_tools(messages, conversation.tools))
    if not template.reads_tools:
        messages = without_tools(messages, conversation.tools)
    tools = tools_of(conversation.tools) if template.reads_tools else None
    write = partial(
        write_prompt,
        template,
        variables={
            "enable_thinking": False,
            "documents": None,
            **dict(conversation.template_kwargs),
            **special_tokens,
            "tools": tools,
        },
        max_size=SPARE_CHARACTERS + GROWTH * size_of(conversation),
    )
    try:
        return write(messages)
    except Exception as error:  # a template may fail in any way that Python knows
        reason = error
    try:
        return write(simplified(messages))
    except Exception:
        if conversation.tools:
            raise refusal(reason) from None
    return plain(without_tools(messages, ()))


def refusal(reason: Exception) -> TemplateRenderFailed:
    told = escape(f"{type(reason).__name__}: {reason}"[:MAX_REASON_CHARACTERS])
    return TemplateRenderFailed(
        f"The model's chat template cannot render this request, which carries tools: {told}",
        param="messages",
    )


def write_prompt(
    template: ChatTemplate, messages: list[ChatMessage], variables: dict[str, Any], max_size: int
) -> Rendered:
    def written(messages: list[ChatMessage], add_generation_prompt: bool) -> str:
        own = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        return template.render(variables | own, max_size)

    *earlier, last = messages
    if not is_open(last):
        return Rendered(written(earlier if says_nothing(last) else messages, True))
    marked = written([*earlier, last | {"content": last["content"] + CONTINUE}], False)
    begin = marked.rfind(CONTINUE.rstrip())
    if begin < 0:  # the template drops what it is to continue: let it begin, and say it ourselves
        return Rendered(written(earlier, True) + last["content"], continues=True)
    is_kept = marked.startswith(CONTINUE, begin)
    return Rendered(marked[:begin] if is_kept else marked[:begin].rstrip(), continues=True)


def is_open(last: ChatMessage) -> bool:
    """Whether the last message is the beginning of the answer."""
    has_text = isinstance(last["content"], str) and last["content"] != ""
    return last["role"] == "assistant" and has_text and not last.get("tool_calls")


def says_nothing(last: ChatMessage) -> bool:
    """Whether the last message is a beginning of the answer without a word in it."""
    return last["role"] == "assistant" and last["content"] == "" and not last.get("tool_calls")


def plain(messages: list[ChatMessage]) -> Rendered:
    """`role: text`, a blank line between, for models without a template."""
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    if messages and is_open(messages[-1]):
        return Rendered("\n\n".join(lines), continues=True, is_plain=True)
    return Rendered("\n\n".join([*lines, "assistant:"]), is_plain=True)


def size_of(conversation: Conversation) -> int:
    """Characters that a template is given, more or less."""
    parts = [part for message in conversation.messages for part in message.parts]
    size = sum(len(orjson.dumps(tool.parameters)) for tool in conversation.tools)
    size += sum(len(tool.description or "") for tool in conversation.tools)
    for part in parts:
        match part:
            case Text(text) | Reasoning(text) | ToolCall(arguments=text):
                size += len(text)
            case ToolResult(_, content):
                size += sum(len(said.text) for said in content if isinstance(said, Text))
    return size
