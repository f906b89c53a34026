"""A state machine over the events of one Responses stream: what may follow what, and with which fields."""

from collections.abc import Iterator

import orjson

from helexa.conversation import Json
from helexa.wire import sse

ENDS = {"response.completed", "response.incomplete", "response.failed"}
DELTAS = {
    "response.output_text": ("message", "content_index", "text"),
    "response.reasoning_text": ("reasoning", "content_index", "text"),
    "response.reasoning_summary_text": ("reasoning", "summary_index", "text"),
    "response.function_call_arguments": ("function_call", None, "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", None, "input"),
}
PARTS = {
    "response.content_part": "content_index",
    "response.reasoning_summary_part": "summary_index",
}


def read_events(stream: bytes) -> list[Json]:
    """The events; the frames must be named after them, and `[DONE]` must be the last."""
    frames = [found for found in sse.Parser().feed(stream) if isinstance(found, sse.Frame)]
    assert frames.pop().data == "[DONE]"
    events = [orjson.loads(frame.data) for frame in frames]
    assert [frame.event for frame in frames] == [event["type"] for event in events]
    return events


def check(stream: bytes) -> list[Json]:
    """The items of a stream that obeys the grammar; an AssertionError for one that does not."""
    events = read_events(stream)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    created, in_progress, *rest, last = events
    assert created["type"] == "response.created"
    assert in_progress["type"] == "response.in_progress"
    assert last["type"] in ENDS
    assert last["response"]["status"] == last["type"].removeprefix("response.")
    ids = {event["response"]["id"] for event in events if "response" in event}
    assert len(ids) == 1
    items = list(check_items(event for event in rest if event["type"] != "response.in_progress"))
    assert last["response"]["output"] == items
    return items


def check_items(events: Iterator[Json]) -> Iterator[Json]:
    for index, added in enumerate(events):
        assert added["type"] == "response.output_item.added"
        assert added["output_index"] == index
        yield check_item(index, added["item"], events)


def check_item(index: int, item: Json, events: Iterator[Json]) -> Json:
    """From after its beginning to its end."""
    told: dict[str, str] = {}
    part: str | None = None
    for event in events:
        assert event["output_index"] == index
        kind, _, verb = event["type"].rpartition(".")
        if event["type"] == "response.output_item.done":
            assert part is None
            return check_done(item, event["item"], "".join(told.values()))
        assert event["item_id"] == item["id"]
        if kind in PARTS:
            assert event[PARTS[kind]] == 0
            assert (part is None) == (verb == "added")
            part = kind if verb == "added" else None
            assert event["part"]["text"] == ("" if part else told.get("text", ""))
            continue
        of, where, name = DELTAS[kind]
        assert item["type"] == of
        assert where is None or (event[where] == 0 and part is not None)
        if verb == "delta":
            told[name] = told.get(name, "") + event["delta"]
        else:
            assert event[name] == told.get(name, "")
    raise AssertionError("the item has no end")


def check_done(added: Json, done: Json, told: str) -> Json:
    assert (done["id"], done["type"]) == (added["id"], added["type"])
    assert added.get("status", "in_progress") == "in_progress"
    match done["type"]:
        case "message":
            assert [part["text"] for part in done["content"]] == [told]
        case "reasoning":
            parts = [*done.get("content", ()), *done["summary"]]
            assert [part["text"] for part in parts] == [told]
        case "function_call":
            assert done["arguments"] == told
        case "custom_tool_call":
            assert done["input"] == told
    return done
