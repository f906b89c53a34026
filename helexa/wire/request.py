"""What the requests of several dialects have alike: bounds, the model, and the names of tools."""

from helexa.conversation import Json
from helexa.errors import MissingModelField
from helexa.wire.fields import Fields

MAX_NAME_CHARACTERS = 512
MAX_MESSAGES = 4096
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
