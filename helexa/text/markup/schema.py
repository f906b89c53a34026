"""Which JSON types a tool's schema allows for an argument.  Whatever is written there, it answers."""

from collections.abc import Iterator

from helexa.conversation import Json, Tool

Types = frozenset[str]  # of JSON's names; empty where any will do

ANY: Types = frozenset()
STRING: Types = frozenset({"string"})
MAX_DEPTH = 16  # of schemas that refer to others
ALIASES = {  # what people write who think in another language
    "str": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "tuple": "array",
    "none": "null",
}
NAMES = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})


def types_of(tool: Tool | None, key: str) -> Types:
    """The types of one argument.  One that is not declared is a string."""
    schema = tool.parameters if tool is not None else None
    if not isinstance(schema, dict):
        return STRING
    properties = schema.get("properties")
    if isinstance(properties, dict) and key in properties:
        return types_in(properties[key], schema)
    return types_in(more, schema) if isinstance(more := extra(schema), dict) else STRING


def extra(schema: dict[str, Json]) -> Json:
    return schema.get("additionalProperties")


def types_in(schema: Json, root: Json, depth: int = 0) -> Types:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return ANY
    found = stated(schema, root, depth)
    return found | {"null"} if found and schema.get("nullable") is True else found


def stated(schema: dict[str, Json], root: Json, depth: int) -> Types:
    if isinstance(reference := schema.get("$ref"), str):
        return types_in(resolved(reference, root), root, depth + 1)
    if "type" in schema:
        return frozenset(named(schema["type"]))
    if "const" in schema:
        return frozenset({type_of(schema["const"])})
    if isinstance(values := schema.get("enum"), list):
        return frozenset(map(type_of, values))
    for word in ("anyOf", "oneOf"):
        if isinstance(branches := schema.get(word), list):
            each = [types_in(branch, root, depth + 1) for branch in branches[:MAX_DEPTH]]
            return frozenset().union(*each) if all(each) else ANY
    for branch in parts if isinstance(parts := schema.get("allOf"), list) else ():
        if found := types_in(branch, root, depth + 1):
            return found
    if "properties" in schema:
        return frozenset({"object"})
    return frozenset({"array"}) if "items" in schema else ANY


def named(stated: Json) -> Iterator[str]:
    for name in stated if isinstance(stated, list) else [stated]:
        word = str(name).lower()
        word = ALIASES.get(word, word)
        yield word if word in NAMES else "string"


def resolved(reference: str, root: Json) -> Json:
    """What `#/$defs/name` refers to."""
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def type_of(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
