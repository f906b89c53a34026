"""Conversations and answers of every form that chat completions can carry."""

from hypothesis import strategies as st

from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Finished,
    Image,
    Message,
    Progress,
    Reasoning,
    Sampling,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolCall,
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
    st.builds(Message, st.just("tool"), st.tuples(st.builds(ToolResult, words, contents)), names),
)
tools = st.builds(Tool, words, st.none() | st.text(max_size=20), json_objects)


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
conversations = st.builds(
    Conversation,
    model=words,
    messages=st.lists(messages, min_size=1, max_size=5).map(tuple),
    tools=st.lists(tools, max_size=2).map(tuple),
    sampling=samplings,
    max_tokens=option(st.integers(1, 2**53)),
    n=st.integers(1, 8),
    template_kwargs=st.dictionaries(
        st.sampled_from(["enable_thinking", "documents", "date"]), json_values, max_size=2
    ).map(lambda kwargs: tuple(kwargs.items())),
)

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


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """The events of one generation: what waits, a start, deltas of each choice, ends, the usage."""
    phases = st.sampled_from(["queued", "loading", "prefill"])
    waiting = draw(st.lists(st.builds(Progress, phases, counts, counts), max_size=3))
    lines: list[list[Event]] = []
    for choice in range(draw(st.integers(1, 3))):
        deltas = st.builds(
            TextDelta,
            st.just(choice),
            st.text(max_size=9),
            st.lists(logprobs, max_size=2).map(tuple),
        ).filter(lambda delta: delta.text or delta.logprobs)
        stop = draw(option(words))
        reason = "stop" if stop is not None else draw(st.sampled_from(["stop", "length"]))
        lines.append([*draw(st.lists(deltas, max_size=4)), ChoiceFinished(choice, reason, stop)])
    merged: list[Event] = []
    while any(lines):
        merged.append(draw(st.sampled_from([line for line in lines if line])).pop(0))
    usage = draw(usages)
    started = Started(usage.prompt_tokens, usage.cached_tokens)
    return [*waiting, started, *merged, Finished(usage)]


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut at any places."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
