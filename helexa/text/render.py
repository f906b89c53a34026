"""Chat templates made into text, in a process that may be killed: `helexa.renderers` runs these.

Templates come from outside, and may loop forever or fill the memory.  transformers renders them, so
that a prompt is the one that the model was trained on; what bounds them is the process.
"""

import resource
import signal
from collections.abc import Iterable, Iterator

import orjson
from attrs import evolve, frozen

from helexa.conversation import Json
from helexa.text.chat import ChatMessage, without_tools
from helexa.text.source import MAX_SOURCE_CHARACTERS
from helexa.text.strict import (
    described,
    in_parts,
    simplified,
    with_thought_parts,
    without_thoughts,
)

MAX_SECONDS = 10.0
MAX_BYTES = 1024 * 1024 * 1024  # of address space; a fifth of it is Python and its modules
SPENT_BYTES = 256 * 1024 * 1024  # a process that was once so large is not used again
# A rendering may be this many characters longer than what it renders, and this many times as long.
SPARE_CHARACTERS = 1024 * 1024
GROWTH = 8
MAX_REASON_CHARACTERS = 300
LONG_CHARACTERS = 16  # what is shorter is not looked for in halves


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


@frozen
class Order:
    """What is to be rendered.  The last two tell how content is written, see `source.Reads`."""

    source: str
    messages: list[ChatMessage]
    variables: dict[str, Json]
    parts: bool
    thought_parts: bool

    @property
    def tools(self) -> list[Json]:
        return self.variables.get("tools") or []

    def with_messages(self, messages: list[ChatMessage], **variables: Json) -> "Order":
        return evolve(self, messages=messages, variables=self.variables | variables)

    def formed(self) -> list[ChatMessage]:
        messages = with_thought_parts(self.messages) if self.thought_parts else self.messages
        return in_parts(messages) if self.parts else messages


def render(order: bytes, max_seconds: float = MAX_SECONDS) -> Rendered | Unrendered:
    """The prompt that an order of `helexa.text.template` asks for; never raises.

    A template that fails gets other tries, the last in the simplest form; so does one that renders but
    loses something.  Whoever takes longer than `max_seconds` over all of it ends with the process: also
    when nobody is left to kill it.
    """
    signal.setitimer(signal.ITIMER_REAL, max_seconds)
    try:
        given, max_size = Order(**orjson.loads(order)), SPARE_CHARACTERS + GROWTH * len(order)
        found = first_of(tries(given), max_size)
        if isinstance(found, Unrendered) or carries(found.text, given):
            return found
        again = first_of(simpler(given), max_size, whole=given)
        return found if isinstance(again, Unrendered) else again
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def first_of(
    tries: Iterable[Order], max_size: int, whole: Order | None = None
) -> Rendered | Unrendered:
    """The first that does not fail, and carries all of `whole`."""
    reason = ""
    for attempt in tries:
        try:
            rendered = write_prompt(attempt)
        except Exception as error:  # a template may fail in any way that Python knows
            reason = reason or reason_of(error)
        else:
            if len(rendered.text) > max_size:
                reason = reason or f"it makes more than {max_size} characters"
            elif whole is None or carries(rendered.text, whole):
                return rendered
    return Unrendered(reason)


def reason_of(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it takes more than {MAX_BYTES >> 20} MiB"
    return f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]


def tries(order: Order) -> Iterator[Order]:
    messages = order.messages
    yield order
    if any("reasoning_content" in message for message in messages):
        mixed = without_thoughts(messages, mixed=True)  # gpt-oss takes no such
        yield order.with_messages(mixed)
        yield order.with_messages(without_thoughts(messages))
    if not order.variables.get("enable_thinking", True):
        yield evolve(order, variables=without_switches(order.variables))
    tools = described(order.tools) or None
    if tools:
        yield order.with_messages(messages, tools=tools)
    yield order.with_messages(simplified(without_thoughts(messages)), tools=tools)


def simpler(order: Order) -> Iterator[Order]:
    """Of what a template loses it may take a part at another place: as what the user says."""
    messages = without_thoughts(order.messages)
    yield order.with_messages(simplified(messages))
    if order.tools:
        said = without_tools(messages, order.tools)
        yield order.with_messages(said, tools=None)
        yield order.with_messages(simplified(said), tools=None)


def without_switches(variables: dict[str, Json]) -> dict[str, Json]:
    """Without what turns thinking off: some models refuse that."""
    switches = ("enable_thinking", "thinking", "thinking_budget")
    return {name: value for name, value in variables.items() if name not in switches}


# -- what must not be lost ---------------------------------------------------------------------------


def carries(text: str, order: Order) -> bool:
    """Whether the prompt has what the system says, every tool, and what the last tool gave."""
    system = [m["content"] for m in order.messages[:1] if m["role"] == "system"]
    results = [m["content"] for m in order.messages if m["role"] == "tool"]
    names = (tool["function"]["name"] for tool in order.tools)
    return all(name in text for name in names) and all(
        has(text, said) for said in (*system, *results[-1:])
    )


def has(text: str, said: Json) -> bool:
    """Half of what is long is enough: templates strip words that are meant for them."""
    if not isinstance(said, str):
        return True
    said = said.strip()
    middle = len(said) // 2 if len(said) >= LONG_CHARACTERS else 0
    pieces = filter(None, (said[:middle].strip(), said[middle:].strip()))
    return not said or any(piece in text or escaped(piece) in text for piece in pieces)


def escaped(said: str) -> str:
    return orjson.dumps(said).decode()[1:-1]


# -- with transformers -------------------------------------------------------------------------------


def write_prompt(order: Order) -> Rendered:
    """A last message of the assistant is left open, to be continued."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def written(messages: list[ChatMessage], **options: bool) -> str:
        found, _ = render_jinja_template(
            [messages], chat_template=order.source, **order.variables, **options
        )
        text: str = found[0]
        return text

    messages = order.formed()
    if len(order.source) > MAX_SOURCE_CHARACTERS:
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
