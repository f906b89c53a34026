"""What the dialects cost: CPU per streamed chunk, exact counting, a long request on its way to the model."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_process import Row, Server, request, request_bytes, server, stream

from helexa.conversation import ChoiceFinished, Finished, Json, Started, TextDelta, Usage
from helexa.wire import anthropic, openai_chat, openai_completions, openai_responses
from helexa.wire.exchange import Exchange, Reply

SAID = [{"role": "user", "content": "hello"}]
DIALECTS: dict[str, Callable[[], Exchange]] = {
    "chat": lambda: openai_chat.read_request({"model": "m", "messages": SAID, "stream": True}),
    "completions": lambda: openai_completions.read_request(
        {"model": "m", "prompt": "hello", "stream": True}
    ),
    "responses": lambda: openai_responses.read_request(
        {"model": "m", "input": "hello", "stream": True}
    ),
    "messages": lambda: anthropic.read_request(
        {"model": "m", "max_tokens": 9, "messages": SAID, "stream": True}
    ),
}
CATALOGUE = """
[[models]]
id = "scripted"
harness = "script"
script = "rules.toml"
"""
RULES = """
[[rules]]
say = "Read."
"""


def rows(directory: Path, *, quick: bool) -> Iterator[Row]:
    for name, read in DIALECTS.items():
        yield f"codec per streamed chunk, {name}", f"{codec_cost(read(), 50_000):.1f} µs"
    directory.mkdir()
    (directory / "models.toml").write_text(CATALOGUE)
    (directory / "rules.toml").write_text(RULES)
    options = {
        "HELEXA_MODELS__CATALOGUE": str(directory / "models.toml"),
        "HELEXA_MODELS__PRELOAD": '["scripted"]',
    }
    with server(["-m", "helexa", "serve"], directory / "state", options) as found:
        count = 50 if quick else 300
        for name, body in (("small", "hello"), ("40 KB", "All the world is a stage. " * 1600)):
            yield f"count_tokens, {name}, each another", f"{counting(found, body, count):.0f}/s"
        long = {"model": "scripted", "stream": True, "max_tokens": 4}
        times = [first_byte(found, {**long, "messages": said(i)}) for i in range(3 if quick else 9)]
        size = len(request_bytes({**long, "messages": said(0)})) >> 10
        yield (
            f"{size} KB request to its first token, no prefill",
            f"{statistics.median(times):.2f} s",
        )


def codec_cost(exchange: Exchange, count: int) -> float:
    """Microseconds for an event of a few letters to become bytes."""
    writer = exchange.writer(Reply("req_bench", "m", 0))
    writer.write(Started(10))
    events = [TextDelta(0, f" word{i % 100}") for i in range(count)]
    began = time.perf_counter()
    for event in events:
        writer.write(event)
    seconds = time.perf_counter() - began
    writer.write(ChoiceFinished(0, "stop"))
    writer.write(Finished(Usage(10, count)))
    return 1e6 * seconds / count


def counting(found: Server, text: str, count: int) -> float:
    """Requests per second of one client, none of which was counted before."""
    began = time.perf_counter()
    for i in range(count):
        body = {"model": "scripted", "messages": [{"role": "user", "content": f"{i} {text}"}]}
        request(found, body, "/v1/messages/count_tokens")
    return count / (time.perf_counter() - began)


def said(salt: int) -> Json:
    """About 400 KB in 40 turns, as an agent's conversation is."""
    line = f"{salt}. All the world is a stage, and all the men and women merely players. "
    turns = [("user", "assistant")[i % 2] for i in range(41)]
    return [{"role": role, "content": line * 135} for role in turns]


def first_byte(found: Server, body: Json) -> float:
    return stream(found, body)[0]
