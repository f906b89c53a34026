"""The content blocks of a Messages request."""

from collections.abc import Iterator

import orjson

from helexa.conversation import Image, Part, Reasoning, Text, ToolCall, ToolResult
from helexa.wire.fields import Fields
from helexa.wire.opaque import unwrap

MAX_BLOCKS = 4096  # of one message or result


class Note(str):
    """What of the request was left out: for the log."""


def read_content(parent: Fields) -> Iterator[Part | Note]:
    """The parts of `content`: a string, a list of blocks, or nothing.  Empty text is no part."""
    content = parent.get("content")
    if content is None or isinstance(content, str):
        yield from read_text(content)
        return
    if not isinstance(content, list):
        parent.refuse("content", "must be a string or a list of content blocks")
    for block in parent.objects("content", MAX_BLOCKS) or ():
        yield from read_block(block)


def read_block(block: Fields) -> Iterator[Part | Note]:
    kind = block.required_text("type")
    match kind:
        case "text":
            yield from read_text(block.required_text("text"))
        case "image":
            yield read_image(block.required_object("source"))
        case "document":
            yield from read_document(block)
        case "search_result":
            yield from read_titled(block, "title", "source")
        case "thinking":
            yield from read_thinking(block)
        case "tool_use":
            yield read_call(block)
        case "tool_result":
            yield from read_result(block)
        case "tool_reference":  # what a tool that searches for tools has found
            yield from read_text(block.required_text("tool_name"))
        case "compaction":  # what was said before it, in short
            yield from read_text(block.text("content"))
        case _:  # blocks of tools that ran elsewhere, sealed thoughts, and what is newer than this
            yield Note(f"{block.path}: a block of type {kind[:40]} was skipped")


def read_text(text: str | None) -> Iterator[Text]:
    if text:
        yield Text(text)


# -- pictures and documents ------------------------------------------------------------------------


def read_image(source: Fields) -> Image:
    match source.required_text("type"):
        case "base64":
            kind = source.required_text("media_type")
            if not kind.startswith("image/"):
                source.refuse("media_type", "must be a type of picture, such as image/png")
            return Image(f"data:{kind};base64,{source.required_text('data')}")
        case "url":
            url = source.required_text("url")
            if not url.startswith("data:image/"):
                source.refuse("url", "cannot be fetched: send the picture itself, as type base64")
            return Image(url)
        case "file":
            source.refuse("file_id", "names a file that is not here: send the picture as base64")
        case _:
            source.refuse("type", "must be base64: pictures come in the request itself")


def read_document(block: Fields) -> Iterator[Part | Note]:
    """A document as what it says, under its title and context."""
    for key in ("title", "context"):
        yield from read_text(block.text(key))
    source = block.required_object("source")
    match source.required_text("type"):
        case "text":
            yield from read_text(source.required_text("data"))
        case "content":
            yield from read_content(source)
        case "base64":
            source.refuse("data", "cannot be read: send the document's text, as type text")
        case "url":
            source.refuse("url", "cannot be fetched: send the document's text, as type text")
        case "file":
            source.refuse("file_id", "names a file that is not here: send the document's text")
        case _:
            source.refuse("type", "must be text or content")


def read_titled(block: Fields, *titles: str) -> Iterator[Part | Note]:
    for key in titles:
        yield from read_text(block.text(key))
    yield from read_content(block)


# -- thoughts and tools ----------------------------------------------------------------------------


def read_thinking(block: Fields) -> Iterator[Reasoning]:
    """Whoever sends a thought back is believed; of one that was sealed the signature has the text."""
    signature = block.text("signature") or ""
    if text := block.required_text("thinking") or unwrap(signature):
        yield Reasoning(text)


def read_call(block: Fields) -> ToolCall:
    call_id, name = block.required_text("id"), block.required_text("name")
    arguments = block.get("input")
    if isinstance(arguments, str):  # half-written, sent back by clients that could not parse it
        return ToolCall(call_id, name, arguments)
    return ToolCall(call_id, name, orjson.dumps(block.json_object("input") or {}).decode())


def read_result(block: Fields) -> Iterator[ToolResult | Note]:
    call_id = block.required_text("tool_use_id")
    parts: list[Text | Image] = []
    for found in read_content(block):
        match found:
            case Note():
                yield found
            case Text() | Image():
                parts.append(found)
            case _:
                block.refuse("content", "must hold text, pictures and documents")
    yield ToolResult(call_id, tuple(parts), block.flag("is_error") or False)
