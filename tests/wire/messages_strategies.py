"""Requests and answers of every form that Anthropic's Messages can carry."""

from chat_strategies import json_objects, words
from hypothesis import strategies as st

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Image,
    Json,
    Message,
    Progress,
    Reasoning,
    ReasoningDelta,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
counts = st.integers(0, 2**40)


def option(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


# -- requests --------------------------------------------------------------------------------------

cached = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])


def block(kind: str, **fields: st.SearchStrategy) -> st.SearchStrategy:
    whole = st.fixed_dictionaries({"type": st.just(kind)} | fields)
    return st.builds(lambda own, extra: own | extra, whole, cached)


texts = block("text", text=st.text(max_size=20))
images = block("image", source=st.just(PNG))
documents = block(
    "document",
    source=st.fixed_dictionaries(
        {"type": st.just("text"), "media_type": st.just("text/plain"), "data": words}
    ),
    title=option(words),
)
said = st.lists(texts | images | documents, max_size=3)
contents = st.text(max_size=20) | said
results = block(
    "tool_result", tool_use_id=words, content=contents | st.none(), is_error=option(st.booleans())
)
thoughts = block("thinking", thinking=words, signature=words) | block(
    "redacted_thinking", data=words
)
calls = block("tool_use", id=words, name=words, input=json_objects)
turns = st.one_of(
    st.fixed_dictionaries({"role": st.just("user"), "content": contents}),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": st.lists(results | texts | images, max_size=4)}
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.lists(thoughts | texts | calls, max_size=5)}
    ),
    st.fixed_dictionaries({"role": st.just("system"), "content": st.text(max_size=20)}),
)
tools = st.builds(
    lambda name, schema, extra: {"name": name, "input_schema": schema} | extra,
    words,
    json_objects,
    st.sampled_from([{}, {"description": "d"}, {"type": "custom"}, {"strict": True}]),
)
choices = st.sampled_from([None, {"type": "auto"}, {"type": "none"}]) | st.just(
    {"type": "auto", "disable_parallel_tool_use": True}
)
thinkings = st.sampled_from(
    [
        None,
        {"type": "disabled"},
        {"type": "adaptive"},
        {"type": "adaptive", "display": "omitted"},
        {"type": "enabled", "budget_tokens": 2048},
    ]
)
formats = st.none() | st.builds(
    lambda schema: {"type": "json_schema", "schema": schema}, json_objects
)
bodies = st.fixed_dictionaries(
    {
        "model": words,
        "messages": st.lists(turns, min_size=1, max_size=6),
        "system": option(st.text(max_size=20) | st.lists(texts, max_size=3)),
        "tools": option(st.lists(tools, max_size=2)),
        "tool_choice": choices,
        "max_tokens": st.integers(1, 2**53),
        "temperature": option(st.floats(0, 1)),
        "top_p": option(st.floats(0.01, 1)),
        "top_k": option(st.integers(0, 1000)),
        "stop_sequences": option(st.lists(words, max_size=3)),
        "thinking": thinkings,
        "output_config": st.fixed_dictionaries(
            {"effort": st.sampled_from([None, "low", "max"]), "format": formats}
        ),
        "stream": option(st.booleans()),
    }
)


def canonical(message: Message) -> Message:
    """An assistant's turn as chat completions order it: one thought, what is said, calls."""
    if message.role != "assistant":
        return message
    parts = message.parts
    thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
    said = (part for part in parts if isinstance(part, Text | Image))
    called = (part for part in parts if isinstance(part, ToolCall))
    return Message("assistant", (*([Reasoning(thought)] if thought else []), *said, *called))


# -- answers ---------------------------------------------------------------------------------------

usages = st.builds(
    lambda cached, rest, out: Usage(cached + rest, out, cached), counts, counts, counts
)
waits = st.builds(
    Progress, st.sampled_from(["queued", "loading", "prefill", "decode"]), counts, counts
)


def cut(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@st.composite
def thinking_events(draw: st.DrawFn) -> list[Event]:
    return [ReasoningDelta(0, piece) for piece in cut(draw(words), draw(st.integers(1, 5)))]


@st.composite
def text_events(draw: st.DrawFn) -> list[Event]:
    return [TextDelta(0, piece) for piece in draw(st.lists(st.text(max_size=5), max_size=4))]


@st.composite
def call_events(draw: st.DrawFn, index: int, arguments: str | None = None) -> list[Event]:
    written = draw(st.text(max_size=20)) if arguments is None else arguments
    pieces = cut(written, draw(st.integers(1, 5)))
    started = ToolCallStarted(0, index, f"call_{index}", draw(words))
    return [started, *(ToolCallDelta(0, index, piece) for piece in pieces)]


@st.composite
def endings(draw: st.DrawFn, called: bool) -> ChoiceFinished:
    if called:
        return ChoiceFinished(0, "tool_calls")
    stop = draw(option(words))
    return ChoiceFinished(0, "stop" if stop else draw(st.sampled_from(["stop", "length"])), stop)


@st.composite
def any_events(draw: st.DrawFn) -> list[Event]:
    """An answer whose blocks come in any order, with signs of life before and between them."""
    said: list[Event] = list(draw(st.lists(waits, max_size=2)))
    if draw(st.booleans()):
        said.append(Started(draw(counts)))
    kinds = draw(st.lists(st.sampled_from(["thinking", "text", "call", "wait"]), max_size=6))
    for index, kind in enumerate(kinds):
        match kind:
            case "thinking":
                said += draw(thinking_events())
            case "text":
                said += draw(text_events())
            case "call":
                said += draw(call_events(index))
            case _:
                said.append(draw(waits))
    return [*said, draw(endings("call" in kinds)), Finished(draw(usages))]


@st.composite
def orderly_events(draw: st.DrawFn) -> list[Event]:
    """An answer as a whole one is ordered, its calls complete: a thought, a text, calls."""
    usage = draw(usages)
    said: list[Event] = [Started(usage.prompt_tokens, usage.cached_tokens)]
    said += draw(st.just([]) | thinking_events())
    said += draw(text_events())
    num_calls = draw(st.integers(0, 2))
    for index in range(num_calls):
        said += draw(call_events(index, draw(st.sampled_from(["", "{}", '{"a": [1, "é"]}']))))
    return [*said, draw(endings(num_calls > 0)), Finished(usage)]


def deltas(kind: str) -> set[str]:
    """What may be brought to a block of this kind."""
    return {
        "text": {"text_delta"},
        "thinking": {"thinking_delta", "signature_delta"},
        "tool_use": {"input_json_delta"},
    }[kind]


def holds(delta: Json) -> str:
    """What a delta brings: the one field beside its type."""
    (name,) = set(delta) - {"type"}
    return str(delta[name])
