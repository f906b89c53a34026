"""The content of messages and of tool results, in both directions."""

import base64

import orjson

from helexa.conversation import Image, Json, Text
from helexa.wire.fields import MAX_JSON_BYTES, Fields

MAX_PARTS = 1024
PARTS = "input_text, output_text, refusal, input_image or input_file"


def read_content(parent: Fields, key: str = "content") -> tuple[Text | Image, ...]:
    """A string, a list of parts, or nothing.  Empty text is no part."""
    content = parent.get(key)
    if content is None or isinstance(content, str):
        return (Text(content),) if content else ()
    if not isinstance(content, list):
        parent.refuse(key, "must be a string or a list of content parts")
    parts = [read_part(part) for part in parent.objects(key, MAX_PARTS) or ()]
    return tuple(part for part in parts if part != Text(""))


def read_part(part: Fields) -> Text | Image:
    match part.required_text("type"):
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
            return Text(part.required_text("text"))
        case "refusal":
            return Text(part.required_text("refusal"))
        case "input_image" | "image_url":
            return read_image(part)
        case "input_file":
            return read_file(part)
        case _:
            part.refuse("type", f"must be {PARTS}: other content is not supported")


def read_image(part: Fields) -> Image:
    if part.has("file_id"):
        part.refuse("file_id", "must not be set: no files are stored here, send a data URI")
    holder, key = part, "image_url"
    if isinstance(part.get("image_url"), dict):  # the form of chat completions
        holder, key = part.required_object("image_url"), "url"
    uri = holder.required_text(key)
    if not uri.startswith("data:image/"):
        holder.refuse(
            key,
            "must be a data URI (data:image/...;base64,...): pictures are not fetched from the network",
        )
    return Image(uri)


def read_file(part: Fields) -> Text:
    """A text file, as its name and its text."""
    for key in ("file_id", "file_url"):
        if part.has(key):
            part.refuse(
                key, "must not be set: no files are stored or fetched here, send `file_data`"
            )
    data, name = part.required_text("file_data"), part.text("filename")
    encoded = data.partition(",")[2] if data.startswith("data:") else data
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        part.refuse("file_data", "must be a text file (UTF-8) in base64: other files are not read")
    return Text(f"{name}:\n{text}" if name else text)


def read_output(item: Fields) -> tuple[Text | Image, ...]:
    """What a tool gave: a string, a list of parts, or other JSON, which is handed on as text."""
    match item.get("output"):
        case dict() | [{"stdout": _} | {"stderr": _}, *_] as output:
            item.bound("output", MAX_JSON_BYTES)
            return (Text(orjson.dumps(output).decode()),)
        case _:
            return read_content(item, "output")


# -- the other direction -----------------------------------------------------------------------------


def write_content(parts: tuple[Text | Image, ...], text_type: str = "input_text") -> list[Json]:
    return [write_part(part, text_type) for part in parts]


def write_part(part: Text | Image, text_type: str) -> Json:
    match part:
        case Text(text) if text_type == "output_text":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        case Text(text):
            return {"type": text_type, "text": text}
        case Image(data_uri):
            return {"type": "input_image", "image_url": data_uri, "detail": "auto"}


def write_output(parts: tuple[Text | Image, ...]) -> Json:
    match parts:
        case ():
            return ""
        case (Text(text),):
            return text
        case _:
            return write_content(parts)
