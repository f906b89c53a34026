"""The arguments of a call in the formats that do not write them as one JSON object.

They are told apart by the types that the reader of the format goes by (`markup.schema.types_of`): a
string stands there as it is, all else as JSON.  Arguments come in the order in which the schema names
them; those that it does not name have no place.
"""

from collections.abc import Callable, Iterator, Sequence

from attrs import field, frozen
from llguidance import regex_to_lark

from helexa.conversation import Json, Tool
from helexa.text.constraint.rules import Rules, either, quote, sequence
from helexa.text.constraint.schema import PLAIN_ESCAPES, json_by
from helexa.text.markup import ToolFormat
from helexa.text.markup.schema import MAX_DEPTH, resolved, types_of

# Formats that write each argument by itself, so that a grammar has to name them.
TOLD_APART: frozenset[ToolFormat] = frozenset({"qwen_xml", "glm", "pythonic"})
DEFINITIONS = ("$defs", "definitions")
ANY = "(?s:.*)"


@frozen
class Offer:
    """A tool that may be called: `schema` is what its arguments are held to.

    `lenient` takes no notice of what of it cannot be enforced.
    """

    tool: Tool
    schema: Json = field(eq=False)
    lenient: bool

    def argument(self, key: str) -> Json:
        """The schema of one argument, which may refer to the definitions beside it."""
        schema = self.schema["properties"][key]
        if not isinstance(schema, dict):
            return schema
        return {
            **{word: self.schema[word] for word in DEFINITIONS if word in self.schema},
            **schema,
        }

    @property
    def named(self) -> list[str]:
        properties = self.schema.get("properties") if isinstance(self.schema, dict) else None
        return list(properties) if isinstance(properties, dict) else []

    @property
    def required(self) -> Sequence[str]:
        required = self.schema.get("required") if isinstance(self.schema, dict) else None
        return required if isinstance(required, list) else ()


def elements(rules: Rules, offer: Offer) -> str:
    """<parameter=key>, the value on lines of its own, </parameter>."""

    def element(key: str) -> str:
        value = tagged(rules, offer, key, "\n</parameter>")
        return sequence([quote(f"<parameter={key}>\n"), value, quote("\n")])

    return in_order(rules, offer, element)


def pairs(rules: Rules, offer: Offer) -> str:
    """<arg_key>key</arg_key>, <arg_value>value</arg_value>."""

    def pair(key: str) -> str:
        head = rules.spell(f"<arg_key>{key}</arg_key>\n<arg_value>")
        return sequence([head, tagged(rules, offer, key, "</arg_value>"), quote("\n")])

    return in_order(rules, offer, pair)


def keywords(rules: Rules, offer: Offer) -> str:
    """key=value, with commas."""

    def keyword(key: str) -> str:
        value = json_by(offer.argument(key), lenient=offer.lenient, escapes=PLAIN_ESCAPES)
        return sequence([quote(f"{key}="), value])

    return in_order(rules, offer, keyword, ", ")


def in_order(rules: Rules, offer: Offer, write: Callable[[str], str], between: str = "") -> str:
    """Each argument once at most, the required ones always."""
    first, later = quote(""), quote("")  # what may come from here on: as the first, after others
    for key in reversed(offer.named):
        argument = rules.add(write(key))
        others = later
        options = [f"{quote(between)} {argument} {others}"]
        starts = [f"{argument} {others}"]
        if key not in offer.required:
            options.append(others)
            starts.append(first)
        later = rules.add(either(options))
        first = rules.add(either(starts))
    return first


def tagged(rules: Rules, offer: Offer, key: str, end: str) -> str:
    """A value between tags, and what ends it."""
    schema = offer.argument(key)
    types = types_of(offer.tool, key)
    if types and "string" not in types:
        return sequence([json_by(schema, lenient=offer.lenient), rules.spell(end)])
    strings = [branch for branch in branches(schema, offer.schema) if may_be_string(branch)]
    words = [word for branch in strings for word in words_of(branch)]
    if words and all(any(words_of(branch)) for branch in strings):
        return sequence([either(map(quote, words)), rules.spell(end)])
    held = list(limits_of(strings[0])) if len(strings) == 1 else []
    return rules.until(end, *held)


def branches(schema: Json, root: Json, depth: int = 0) -> Iterator[dict[str, Json]]:
    """The alternatives that a schema gives, without those of which nothing is known."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield from branches(resolved(reference, root), root, depth + 1)
        return
    for word in ("anyOf", "oneOf"):
        if isinstance(each := schema.get(word), list):
            for branch in each:
                yield from branches(branch, root, depth + 1)
            return
    yield schema


def may_be_string(schema: dict[str, Json]) -> bool:
    stated = schema.get("type", "string")
    return stated == "string" or (isinstance(stated, list) and "string" in stated)


def words_of(schema: dict[str, Json]) -> Iterator[str]:
    """The strings that an argument must be one of, if it must."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    yield from (v for v in values if isinstance(v, str)) if isinstance(values, list) else ()


def limits_of(schema: dict[str, Json]) -> Iterator[str]:
    """What a string must match as a whole: its pattern and its length."""
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        yield f"/{regex_to_lark(whole(pattern), 'dw')}/"
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) or isinstance(most, int):
        yield f"/(?s:.){{{least or 0},{'' if most is None else most}}}/"


def whole(pattern: str) -> str:
    """A pattern that may match anywhere, as one that matches the whole."""
    begun, ended = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    inner = pattern.removeprefix("^")[: -1 if ended else None]
    return f"{'' if begun else ANY}({inner}){'' if ended else ANY}"
