"""The form that an answer must have (JSON, a schema, a pattern, a grammar), in both directions.

Beside OpenAI's `response_format` the names of vLLM (`structured_outputs`, `guided_...`), SGLang
(`regex`, `ebnf`, `json_schema`) and llama.cpp (`grammar`, `json_schema`) are understood.
"""

from collections.abc import Callable, Iterator
from typing import NoReturn

import orjson

from helexa.conversation import Format, Grammar, Json, JsonObject, JsonSchema, Regex
from helexa.wire.fields import Fields
from helexa.wire.places import Places, format_places

MAX_PATTERN_CHARACTERS = 64 * 1024
MAX_WORDS = 4096  # to choose from
MAX_SCHEMA_NAME_CHARACTERS = 512
SCHEMA_NAME = "answer"
SYNTAX = frozenset(r"\.+*?()|[]{}^$")


def read_format(body: Fields) -> tuple[Format | None, Places]:
    """None is free text.  Two different wishes are refused: no answer could meet both."""
    return one_format(
        body, [*read_response_format(body), *read_structured(body), *read_others(body)]
    )


def one_format(body: Fields, found: list[tuple[str, Format]]) -> tuple[Format | None, Places]:
    """What is wished for, and where, of all that is `found`."""
    for path, wanted in found:
        first, kept = found[0]
        if wanted != kept:
            body.refuse(path, f"must not be set together with `{first}`: an answer has one form")
    if not found:
        return None, {}
    path, wanted = found[0]
    return wanted, format_places(path, wanted)


Found = Iterator[tuple[str, Format]]  # with the path of the wish


def read_response_format(body: Fields) -> Found:
    wanted = body.object("response_format")
    if wanted is None:
        return
    match wanted.text("type"):
        case "text" | None:
            return
        case "json_object" if not wanted.has("schema"):
            yield "response_format", JsonObject()
        case "json_object":
            yield wanted.at("schema"), read_schema(wanted)
        case "json_schema":
            inner = wanted if wanted.has("schema") else wanted.required_object("json_schema")
            yield inner.at("schema"), read_schema(inner)
        case _:
            wanted.refuse("type", "must be text, json_object or json_schema")


def read_schema(wanted: Fields) -> JsonSchema:
    schema = wanted.json_object("schema")
    if schema is None:
        wanted.refuse("schema", "is required and must be a JSON schema")
    return JsonSchema(
        wanted.text("name", MAX_SCHEMA_NAME_CHARACTERS) or SCHEMA_NAME,
        schema,
        wanted.text("description"),
        wanted.flag("strict"),
    )


def read_structured(body: Fields) -> Found:
    wanted = body.object("structured_outputs")
    if wanted is None:
        return
    if wanted.has("structural_tag"):
        wanted.refuse("structural_tag", "is not supported: use json, regex, grammar or choice")
    for key, read in READERS.items():
        if wanted.has(key):
            yield wanted.at(key), read(wanted, key)
    if wanted.flag("json_object"):
        yield wanted.at("json_object"), JsonObject()


def read_others(body: Fields) -> Found:
    for key, kind in OTHER_NAMES.items():
        if body.has(key):
            yield key, READERS[kind](body, key)


# -- one wish ------------------------------------------------------------------------------------------


def read_json(fields: Fields, key: str) -> JsonSchema:
    """A schema, or the text of one."""
    value = fields.get(key)
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            refuse_schema(fields, key)
    if not isinstance(value, dict):
        refuse_schema(fields, key)
    schema = Fields({key: value}, fields.path).json_object(key)
    return JsonSchema(SCHEMA_NAME, schema)


def refuse_schema(fields: Fields, key: str) -> NoReturn:
    fields.refuse(key, "must be a JSON schema: an object, or its text")


def read_regex(fields: Fields, key: str) -> Regex:
    return Regex(fields.required_text(key, MAX_PATTERN_CHARACTERS))


def read_grammar(fields: Fields, key: str) -> Grammar:
    return Grammar(fields.required_text(key, MAX_PATTERN_CHARACTERS))


def read_words(fields: Fields, key: str) -> Regex:
    """One of several texts: a pattern that says so."""
    words = fields.texts(key, MAX_WORDS)
    if not words:
        fields.refuse(key, "must be a list of at least one string")
    pattern = "|".join(map(quote, words))
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        fields.refuse(key, f"must have at most {MAX_PATTERN_CHARACTERS} characters in all")
    return Regex(f"({pattern})")


def quote(text: str) -> str:
    """A pattern that matches `text` alone."""
    return "".join(f"\\{char}" if char in SYNTAX else char for char in text)


READERS: dict[str, Callable[[Fields, str], Format]] = {
    "json": read_json,
    "regex": read_regex,
    "grammar": read_grammar,
    "choice": read_words,
}
OTHER_NAMES = {
    "guided_json": "json",
    "json_schema": "json",
    "guided_regex": "regex",
    "regex": "regex",
    "guided_grammar": "grammar",
    "grammar": "grammar",
    "ebnf": "grammar",
    "guided_choice": "choice",
}


# -- the other direction -----------------------------------------------------------------------------


def write_format(wanted: Format | None) -> dict[str, Json]:
    match wanted:
        case None:
            return {}
        case JsonObject():
            return {"response_format": {"type": "json_object"}}
        case JsonSchema():
            return {"response_format": {"type": "json_schema", "json_schema": write_schema(wanted)}}
        case Regex(pattern):
            return {"structured_outputs": {"regex": pattern}}
        case Grammar(lark):
            return {"structured_outputs": {"grammar": lark}}


def write_schema(wanted: JsonSchema) -> Json:
    written: dict[str, Json] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description is not None:
        written["description"] = wanted.description
    if wanted.strict is not None:
        written["strict"] = wanted.strict
    return written
