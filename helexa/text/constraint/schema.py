"""A JSON schema as a part of a grammar."""

import json

from helexa.conversation import Json
from helexa.text.constraint.bounds import MAX_PROPERTIES

# In a call, as models are trained to write it, and nothing that could go on forever.
COMPACT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
# In an answer that is JSON: indentation too, but not without end.
SPACED = {"whitespace_pattern": r"[ \t\n\r]{1,24}"}
# Python literals know no pairs of \u.
ESCAPES = 'nrbtf\\"u'
PLAIN_ESCAPES = 'nrbtf\\"'
COMPOSED = frozenset(
    ("$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties")
)


def json_by(
    schema: Json, *, lenient: bool = False, compact: bool = True, escapes: str = ESCAPES
) -> str:
    """JSON that is valid by `schema`.

    `lenient` takes no notice of what cannot be enforced, where otherwise the compiler refuses it.
    """
    spacing = COMPACT if compact else SPACED
    options = {**spacing, "lenient": lenient, "json_allowed_escapes": escapes}
    if schema is False:
        return "%json false"
    written = closed(schema) if isinstance(schema, dict) else {}
    return f"%json {json.dumps({**written, 'x-guidance': options})}"


def closed(schema: dict[str, Json]) -> dict[str, Json]:
    """Without properties that are neither named nor excluded: a model asked for {a, b} means these."""
    if "properties" in schema and not COMPOSED & schema.keys():
        return {**schema, "additionalProperties": False}
    return schema


def parameters_of(schema: Json) -> Json:
    """The schema of a tool's arguments: an object, whatever else it leaves out."""
    if schema is None:
        return {"type": "object", "properties": {}}
    if isinstance(schema, dict) and not {"type", "$ref", "anyOf", "oneOf"} & schema.keys():
        return {"type": "object", **schema}
    return schema


def any_arguments(schema: Json) -> Json:
    """A schema that tells the names of arguments and nothing else of them."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not 0 < len(properties) <= MAX_PROPERTIES:
        return {"type": "object"}
    required = schema.get("required")
    named = [key for key in required if key in properties] if isinstance(required, list) else []
    return {"type": "object", "properties": dict.fromkeys(properties, True), "required": named}
