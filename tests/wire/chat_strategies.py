"""Conversations and answers of every form that chat completions can carry."""

from hypothesis import strategies as st

from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Finished,
    Format,
    Grammar,
    Image,
    JsonObject,
    JsonSchema,
    Message,
    Progress,
    Reasoning,
    ReasoningDelta,
    Regex,
    Sampling,
    Started,
    Text,
    TextDelta,
    Thinking,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    ToolChoice,
    ToolResult,
    Usage,
)

words = st.text(min_size=1, max_size=20)
counts = st.integers(0, 2**40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)
texts = st.builds(Text, words)
images = st.builds(Image, st.just("data:image/png;base64,iVBORw0KGgo="))
contents = st.lists(texts | images, max_size=3).map(tuple)
names = st.none() | words
calls = st.builds(ToolCall, words, words, st.text(max_size=20))
results = st.builds(ToolResult, words, contents, st.booleans())


def assistant(
    thought: tuple[Reasoning, ...],
    content: tuple[Text, ...],
    called: tuple[ToolCall, ...],
    name: str | None,
) -> Message:
    return Message("assistant", (*thought, *content, *called), name)


messages = st.one_of(
    st.builds(Message, st.sampled_from(["system", "developer", "user"]), contents, names),
    st.builds(
        assistant,
        st.lists(st.builds(Reasoning, words), max_size=1).map(tuple),
        st.lists(texts, max_size=2).map(tuple),
        st.lists(calls, max_size=2).map(tuple),
        names,
    ),
    st.builds(Message, st.just("tool"), st.tuples(results), names),
)
tools = st.builds(Tool, words, st.none() | st.text(max_size=20), json_objects, st.booleans())


def option(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


samplings = st.builds(
    Sampling,
    temperature=option(st.floats(0, 2)),
    top_p=option(st.floats(0.01, 1)),
    top_k=option(st.integers(0, 1000)),
    min_p=option(st.floats(0, 1)),
    repetition_penalty=option(st.floats(0.1, 10)),
    frequency_penalty=option(st.floats(-2, 2)),
    presence_penalty=option(st.floats(-2, 2)),
    logit_bias=st.dictionaries(st.integers(0, 10**9 - 1), st.floats(-100, 100), max_size=3).map(
        lambda biases: tuple(biases.items())
    ),
    seed=option(st.integers(-(2**63), 2**63 - 1)),
    stop=st.lists(words, max_size=3).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    top_logprobs=option(st.integers(0, 20)),
)
formats: st.SearchStrategy[Format | None] = st.one_of(
    st.none(),
    st.just(JsonObject()),
    st.builds(JsonSchema, words, json_objects, option(st.text(max_size=20)), option(st.booleans())),
    st.builds(Regex, words),
    st.builds(Grammar, words),
)
thinkings = st.builds(
    Thinking,
    enabled=option(st.booleans()),
    effort=option(st.sampled_from(["none", "minimal", "low", "medium", "high"])),
    budget=option(st.integers(1, 2**53)),
    shown=st.booleans(),
)
template_kwargs = st.dictionaries(
    st.sampled_from(["documents", "date", "preserve_thinking"]), json_values, max_size=2
).map(lambda kwargs: tuple(kwargs.items()))


def choices_of(offered: tuple[Tool, ...]) -> st.SearchStrategy[ToolChoice]:
    """Every way to choose from these tools."""
    if not offered:
        return st.builds(ToolChoice, st.sampled_from(["auto", "none"]), parallel=st.booleans())
    some = st.lists(st.sampled_from([tool.name for tool in offered]), max_size=2, unique=True)
    return st.one_of(
        st.builds(
            ToolChoice, st.sampled_from(["auto", "required"]), some.map(tuple), st.booleans()
        ),
        st.builds(ToolChoice, st.just("none"), parallel=st.booleans()),
    )


@st.composite
def conversations_of(
    draw: st.DrawFn, thought: st.SearchStrategy[Thinking] = thinkings
) -> Conversation:
    offered = tuple(draw(st.lists(tools, max_size=3, unique_by=lambda tool: tool.name)))
    return Conversation(
        model=draw(words),
        messages=tuple(draw(st.lists(messages, min_size=1, max_size=5))),
        tools=offered,
        tool_choice=draw(choices_of(offered)),
        format=draw(formats),
        thinking=draw(thought),
        sampling=draw(samplings),
        max_tokens=draw(option(st.integers(1, 2**53))),
        n=draw(st.integers(1, 8)),
        template_kwargs=draw(template_kwargs),
    )


conversations = conversations_of()

# -- answers ---------------------------------------------------------------------------------------

scores = st.floats(-9999, 0)
alternatives = st.builds(TokenLogprob, st.text(max_size=5), st.binary(max_size=4), scores)
logprobs = st.builds(
    TokenLogprob,
    st.text(max_size=5),
    st.binary(max_size=4),
    scores,
    st.lists(alternatives, max_size=2).map(tuple),
)
usages = st.builds(Usage, counts, counts, counts, counts)


arguments = st.lists(st.text(min_size=1, max_size=9), max_size=3)


@st.composite
def lines(draw: st.DrawFn, choice: int) -> list[Event]:
    """One answer: words, thoughts and tool calls in any order, then its end."""
    said = st.builds(
        TextDelta, st.just(choice), st.text(max_size=9), st.lists(logprobs, max_size=2).map(tuple)
    ).filter(lambda delta: delta.text or delta.logprobs)
    thought = st.builds(ReasoningDelta, st.just(choice), st.text(min_size=1, max_size=9))
    called = st.tuples(words, words, arguments)
    line: list[Event] = []
    num_calls = 0
    for each in draw(st.lists(said | thought | called, max_size=5)):
        if not isinstance(each, tuple):
            line.append(each)
            continue
        call_id, name, pieces = each
        line.append(ToolCallStarted(choice, num_calls, call_id, name))
        line += [ToolCallDelta(choice, num_calls, piece) for piece in pieces]
        num_calls += 1
    stop = None if num_calls else draw(option(words))
    ends = ["tool_calls" if num_calls else "stop", "length"]
    reason = "stop" if stop is not None else draw(st.sampled_from(ends))
    return [*line, ChoiceFinished(choice, reason, stop)]


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """The events of one generation: what waits, a start, deltas of each choice, ends, the usage."""
    phases = st.sampled_from(["queued", "loading", "prefill"])
    waiting = draw(st.lists(st.builds(Progress, phases, counts, counts), max_size=3))
    waits = [draw(lines(choice)) for choice in range(draw(st.integers(1, 3)))]
    merged: list[Event] = []
    while any(waits):
        merged.append(draw(st.sampled_from([line for line in waits if line])).pop(0))
    usage = draw(usages)
    started = Started(usage.prompt_tokens, usage.cached_tokens)
    return [*waiting, started, *merged, Finished(usage)]


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut at any places."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
