"""The content of messages and of tool results, in both directions."""

import base64

import orjson

from helexa.conversation import Image, Json, Text
from helexa.wire.fields import MAX_JSON_BYTES, Fields
from helexa.wire.request import read_data_uri, read_parts

PARTS = "input_text, output_text, refusal, input_image or input_file"


def read_content(parent: Fields, key: str = "content") -> tuple[Text | Image, ...]:
    return read_parts(parent, key, read_part)


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
    if isinstance(part.get("image_url"), dict):  # the form of chat completions
        return read_data_uri(part.required_object("image_url"), "url")
    return read_data_uri(part, "image_url")


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
