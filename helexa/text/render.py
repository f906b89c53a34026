"""Chat templates made into text, in a process that may be killed: `helexa.renderers` runs these.

Templates come from outside, and may loop forever or fill the memory.  transformers renders them, so
that a prompt is the one that the model was trained on; what bounds them is the process.
"""

import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial

import orjson
from attrs import frozen

from helexa.conversation import Json
from helexa.text.chat import ChatMessage, in_parts, simplified, without_thoughts
from helexa.text.source import MAX_SOURCE_CHARACTERS

MAX_SECONDS = 10.0
MAX_BYTES = 1024 * 1024 * 1024  # of address space; a fifth of it is Python and its modules
SPENT_BYTES = 256 * 1024 * 1024  # a process that was once so large is not used again
# A rendering may be this many characters longer than what it renders, and this many times as long.
SPARE_CHARACTERS = 1024 * 1024
GROWTH = 8
MAX_REASON_CHARACTERS = 300


@frozen
class Rendered:
    """`continues`: the prompt ends inside an assistant's message, which the answer goes on with.

    `is_plain`: no template wrote it, so the tokeniser has to add what begins a text.
    """

    text: str
    continues: bool = False
    is_plain: bool = False


@frozen
class Unrendered:
    reason: str


def begin() -> None:
    """At the beginning of the process."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def is_spent() -> bool:
    """After every rendering: whether a fresh process should take the next one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > SPENT_BYTES


def warm() -> None:
    """Import what takes long."""
    import transformers.utils.chat_template_utils  # noqa: F401


def render(order: bytes, max_seconds: float = MAX_SECONDS) -> Rendered | Unrendered:
    """The prompt that an order of `helexa.text.template` asks for; never raises.

    A template that fails gets another try without what assistants thought, and one in the simplest
    form: no system message, user and assistant in turn.  Whoever takes longer than `max_seconds`
    over all of it ends with the process: also when nobody is left to kill it.
    """
    signal.setitimer(signal.ITIMER_REAL, max_seconds)
    try:
        return first_of(tries(**orjson.loads(order)), SPARE_CHARACTERS + GROWTH * len(order))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def first_of(tries: Iterator[Callable[[], Rendered]], max_size: int) -> Rendered | Unrendered:
    reason = ""
    for attempt in tries:
        try:
            rendered = attempt()
        except Exception as error:  # a template may fail in any way that Python knows
            reason = reason or reason_of(error)
        else:
            if len(rendered.text) <= max_size:
                return rendered
            reason = reason or f"it makes more than {max_size} characters"
    return Unrendered(reason)


def reason_of(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it takes more than {MAX_BYTES >> 20} MiB"
    return f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]


def tries(
    source: str, messages: list[ChatMessage], variables: dict[str, Json], parts: bool
) -> Iterator[Callable[[], Rendered]]:
    form = in_parts if parts else list
    write = partial(write_prompt, source, variables)
    yield lambda: write(form(messages))
    if any("reasoning_content" in message for message in messages):
        yield lambda: write(form(without_thoughts(messages, mixed=True)))  # gpt-oss takes no such
        yield lambda: write(form(without_thoughts(messages)))
    yield lambda: write(form(simplified(without_thoughts(messages))))


def write_prompt(source: str, variables: dict[str, Json], messages: list[ChatMessage]) -> Rendered:
    """A last message of the assistant is left open, to be continued."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def written(messages: list[ChatMessage], **options: bool) -> str:
        found, _ = render_jinja_template([messages], chat_template=source, **variables, **options)
        text: str = found[0]
        return text

    if len(source) > MAX_SOURCE_CHARACTERS:
        raise ValueError(f"it has more than {MAX_SOURCE_CHARACTERS} characters")
    *earlier, last = messages
    if last["role"] != "assistant" or last.get("tool_calls"):
        return Rendered(written(messages, add_generation_prompt=True))
    if not last["content"]:
        return Rendered(written(earlier, add_generation_prompt=True))
    try:
        return Rendered(written(messages, continue_final_message=True), continues=True)
    except ValueError:
        # The template drops what it is to continue: let it begin, and say it ourselves.
        begun = written(earlier, add_generation_prompt=True)
        return Rendered(begun + text_of(last["content"]), continues=True)


def text_of(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else content[-1]["text"]
