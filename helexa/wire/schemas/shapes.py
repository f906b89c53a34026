"""The words that the JSON schemas are written in."""

from helexa.conversation import Json

STRING: Json = {"type": "string"}
BOOLEAN: Json = {"type": "boolean"}
INTEGER: Json = {"type": "integer", "minimum": 0}
NUMBER: Json = {"type": "number"}
ANY_OBJECT: Json = {"type": "object"}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(optional: dict[str, Json] | None = None, /, **required: Json) -> Json:
    """An object with these properties, and any others."""
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def list_of(items: Json, **bounds: int) -> Json:
    return {"type": "array", "items": items, **bounds}


def one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def integer(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


def number(low: float, high: float) -> Json:
    return {"type": "number", "minimum": low, "maximum": high}


def number_above(low: float, high: float) -> Json:
    return {"type": "number", "exclusiveMinimum": low, "maximum": high}


def nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def any_of(*schemas: Json) -> Json:
    return {"anyOf": list(schemas)}


def text_of(low: int, high: int) -> Json:
    """A string of so many characters."""
    return {"type": "string", "minLength": low, "maxLength": high}


def typed(kind: str, optional: dict[str, Json] | None = None, /, **required: Json) -> Json:
    """An object that says by `type` what it is."""
    return object_of(optional, type=one_of(kind), **required)


def all_nullable(optional: dict[str, Json]) -> dict[str, Json]:
    """Fields of a request, where null is as good as nothing."""
    return {name: nullable(schema) for name, schema in optional.items()}
