"""Where things stand in a request.

What refuses a request later than its codec knows a conversation, and names its parts as chat
completions has them; the client reads the name that the part has in its own request.
"""

from collections.abc import Iterable, Mapping

from helexa.conversation import Format, Grammar, JsonObject, JsonSchema, Regex
from helexa.errors import HelexaError

Places = Mapping[str, str]  # from the name in chat completions to the path in this request


def put_in_place(error: HelexaError, places: Places) -> HelexaError:
    """`error`, or a copy that names the field of the request, also in its message."""
    name = error.param
    if name is None:
        return error
    whole = name.partition("[")[0]  # of a message the place in another dialect is not known
    place = places.get(name) or places.get(whole, name)
    if place == name:
        return error
    moved = error.again()
    moved.param = place
    if "." in name:  # a path, and no word of the language
        moved.message = moved.message.replace(name, place)
    return moved


def tool_places(paths: Iterable[str]) -> Places:
    """`paths` are those of the schemas of the tools, in the order of the conversation's."""
    return {f"tools[{i}].function.parameters": path for i, path in enumerate(paths)}


def format_places(path: str, wanted: Format) -> Places:
    return {format_name(wanted): path}


def format_name(wanted: Format) -> str:
    match wanted:
        case JsonObject():
            return "response_format"
        case JsonSchema():
            return "response_format.json_schema.schema"
        case Regex():
            return "structured_outputs.regex"
        case Grammar():
            return "structured_outputs.grammar"
