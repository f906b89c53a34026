"""One item of an answer while it comes: the events that tell of it, and the item as a whole."""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from attrs import define, field

from helexa.conversation import Json, Part, Reasoning, Text, TokenLogprob, ToolCall
from helexa.wire.logprobs import write_scored
from helexa.wire.opaque import wrap
from helexa.wire.openai_responses.calls import write_call
from helexa.wire.openai_responses.partial import InputReader
from helexa.wire.openai_responses.tools import Origin

Status = Literal["in_progress", "completed", "incomplete"]
Told = Iterator[tuple[str, dict[str, Json]]]  # events: the type of each, and its fields


class Item(Protocol):
    """`events` between `begin` and `end` come with the methods of its kind."""

    @property
    def part(self) -> Part: ...
    def json(self, status: Status) -> dict[str, Json]: ...
    def begin(self) -> Told: ...
    def end(self, status: Status) -> Told: ...


@define(eq=False)
class Spot:
    """Where an item stands in the output."""

    id: str
    index: int

    def at(self, **fields: Json) -> dict[str, Json]:
        return {"item_id": self.id, "output_index": self.index, **fields}

    def added(self, item: Json) -> tuple[str, dict[str, Json]]:
        return "response.output_item.added", {"output_index": self.index, "item": item}

    def done(self, item: Json) -> tuple[str, dict[str, Json]]:
        return "response.output_item.done", {"output_index": self.index, "item": item}


@define(eq=False)
class MessageItem:
    spot: Spot
    _text: list[str] = field(factory=list, init=False)
    _logprobs: list[Json] = field(factory=list, init=False)

    @property
    def part(self) -> Part:
        return Text("".join(self._text))

    def add(self, text: str) -> None:
        """More of the text, which somebody else tells."""
        self._text.append(text)

    def say(self, text: str, logprobs: Iterable[TokenLogprob] = ()) -> Told:
        scores = [write_scored(token) for token in logprobs]
        self.add(text)
        self._logprobs.extend(scores)
        told = self.spot.at(content_index=0, delta=text, logprobs=scores)
        yield "response.output_text.delta", told

    def json(self, status: Status) -> dict[str, Json]:
        content = [] if status == "in_progress" else [self._content()]
        return {
            "id": self.spot.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def begin(self) -> Told:
        yield self.spot.added(self.json("in_progress"))
        yield "response.content_part.added", self.spot.at(content_index=0, part=self._content())

    def end(self, status: Status) -> Told:
        content = self._content()
        scored = {"text": content["text"], "logprobs": content["logprobs"]}
        yield "response.output_text.done", self.spot.at(content_index=0, **scored)
        yield "response.content_part.done", self.spot.at(content_index=0, part=content)
        yield self.spot.done(self.json(status))

    def _content(self) -> dict[str, Json]:
        text = "".join(self._text)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs}


@define(eq=False)
class ReasoningItem:
    """Its text stands in `content`, or in the place of the summary if one was asked for."""

    spot: Spot
    summary: bool
    encrypted: bool
    _text: list[str] = field(factory=list, init=False)

    @property
    def part(self) -> Part:
        return Reasoning("".join(self._text))

    @property
    def _name(self) -> str:
        return "response.reasoning_summary_text" if self.summary else "response.reasoning_text"

    def think(self, text: str) -> Told:
        self._text.append(text)
        yield f"{self._name}.delta", self._at(delta=text)

    def json(self, status: Status) -> dict[str, Json]:
        place = "summary" if self.summary else "content"
        item: dict[str, Json] = {"id": self.spot.id, "type": "reasoning", "status": status}
        item["summary"] = []
        if status != "in_progress":
            item[place] = [self._content()]
            if self.encrypted:
                item["encrypted_content"] = wrap("".join(self._text))
        return item

    def begin(self) -> Told:
        yield self.spot.added(self.json("in_progress"))
        yield f"{self._part_name}.added", self._at(part=self._content())

    def end(self, status: Status) -> Told:
        content = self._content()
        yield f"{self._name}.done", self._at(text=content["text"])
        yield f"{self._part_name}.done", self._at(part=content)
        yield self.spot.done(self.json(status))

    @property
    def _part_name(self) -> str:
        return "response.reasoning_summary_part" if self.summary else "response.content_part"

    def _at(self, **fields: Json) -> dict[str, Json]:
        place = "summary_index" if self.summary else "content_index"
        return self.spot.at(**{place: 0}, **fields)

    def _content(self) -> dict[str, Json]:
        kind = "summary_text" if self.summary else "reasoning_text"
        return {"type": kind, "text": "".join(self._text)}


@define(eq=False)
class CallItem:
    """A call of a function, or of a custom tool, whose input is taken out of the arguments."""

    spot: Spot
    origin: Origin
    call_id: str
    name: str  # as the model knows the tool
    _arguments: list[str] = field(factory=list, init=False)
    _input: InputReader = field(factory=InputReader, init=False)

    @property
    def part(self) -> Part:
        return ToolCall(self.call_id, self.name, "".join(self._arguments))

    def argue(self, arguments: str) -> Told:
        self._arguments.append(arguments)
        if self.origin.kind == "function":
            yield "response.function_call_arguments.delta", self.spot.at(delta=arguments)
        else:
            yield from self._put(self._input.push(arguments))

    def json(self, status: Status) -> dict[str, Json]:
        call = write_call(self.origin, self.call_id, "".join(self._arguments))
        return {"id": self.spot.id, "status": status} | call

    def begin(self) -> Told:
        yield self.spot.added(self.json("in_progress"))

    def end(self, status: Status) -> Told:
        item = self.json(status)
        if self.origin.kind == "function":
            told = self.spot.at(name=item["name"], arguments=item["arguments"])
            yield "response.function_call_arguments.done", told
        else:
            yield from self._put(self._input.finish())
            yield "response.custom_tool_call_input.done", self.spot.at(input=item["input"])
        yield self.spot.done(item)

    def _put(self, text: str) -> Told:
        if text:
            yield "response.custom_tool_call_input.delta", self.spot.at(delta=text)


@define(eq=False)
class CompactionItem:
    """A summary of the conversation, to be sent back in its place."""

    spot: Spot
    _text: list[str] = field(factory=list, init=False)

    @property
    def part(self) -> Part:
        return Text("".join(self._text))

    def say(self, text: str, logprobs: Iterable[TokenLogprob] = ()) -> Told:
        self._text.append(text)
        yield from ()

    def json(self, status: Status) -> dict[str, Json]:
        content = wrap("".join(self._text))
        return {"id": self.spot.id, "type": "compaction", "encrypted_content": content}

    def begin(self) -> Told:
        yield self.spot.added(self.json("in_progress"))

    def end(self, status: Status) -> Told:
        yield self.spot.done(self.json(status))
