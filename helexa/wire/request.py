"""What the requests of several dialects have alike: bounds, the model, content, tools and calls."""

from collections.abc import Callable

import orjson

from helexa.conversation import Image, Json, Text
from helexa.errors import MissingModelField
from helexa.wire.fields import Fields

MAX_NAME_CHARACTERS = 512
MAX_MESSAGES = 4096
MAX_PARTS = 1024  # of the content of one message
MAX_TOKENS = 2**63 - 1  # clamped to what the model's window has left
MAX_TOOLS = 1024
MAX_TOOLS_BYTES = 4 * 1024 * 1024  # of all tools together, as JSON

NO_PARAMETERS: Json = {"type": "object", "properties": {}}

# What a tool of free text becomes: a function of one string.
FREE_TEXT: Json = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


def read_model(body: Fields) -> str:
    model = body.text("model", MAX_NAME_CHARACTERS)
    if not model:
        raise MissingModelField("The request names no model: set `model`.", param="model")
    return model


def check_labels(body: Fields) -> None:
    """What a client notes on a request for itself; nothing here depends on it."""
    for key in ("user", "safety_identifier", "prompt_cache_key"):
        body.text(key)
    body.object("metadata")
    body.flag("store")


def read_tool_name(tool: Fields) -> str:
    name = tool.required_text("name", MAX_NAME_CHARACTERS)
    return name or tool.refuse("name", "must not be empty")


# -- content -----------------------------------------------------------------------------------------


def read_parts(
    holder: Fields, key: str, read_part: Callable[[Fields], Text | Image]
) -> tuple[Text | Image, ...]:
    """A string, a list of parts, or nothing.  Empty text is no part."""
    content = holder.get(key)
    if content is None or isinstance(content, str):
        return (Text(content),) if content else ()
    if not isinstance(content, list):
        holder.refuse(key, "must be a string or a list of content parts")
    parts = [read_part(part) for part in holder.objects(key, MAX_PARTS) or ()]
    return tuple(part for part in parts if part != Text(""))


def read_data_uri(holder: Fields, key: str) -> Image:
    uri = holder.required_text(key)
    if not uri.startswith("data:image/"):
        holder.refuse(
            key,
            "must be a data URI (data:image/...;base64,...): pictures are not fetched from the network",
        )
    return Image(uri)


# -- calls -------------------------------------------------------------------------------------------


def read_arguments(call: Fields) -> str:
    """Text as it is, also half-written, or an object, which some clients and servers send."""
    arguments = call.get("arguments")
    if isinstance(arguments, dict):
        return orjson.dumps(call.json_object("arguments")).decode()
    if not isinstance(arguments, str | None):
        call.refuse("arguments", "must be a string of JSON")
    return arguments or ""


def free_text_arguments(text: str) -> str:
    """The arguments of a tool of free text (FREE_TEXT) that gets `text`."""
    return orjson.dumps({"input": text}).decode()
