"""What a model's small files say of its prompts: templates, special tokens, what ends an answer."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orjson
from attrs import evolve, frozen

from helexa.conversation import Json
from helexa.errors import StoreError
from helexa.text.markup import Markup, detect, ends_of
from helexa.text.template import ChatTemplate
from helexa.text.tokenizer import read_token_id

MAX_CONFIG_BYTES = 16 * 1024 * 1024
HEAD_BYTES = 512 * 1024  # of a tokenizer.json: thousands of added tokens
SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@frozen(eq=False)
class ChatFormat:
    """How a model wants to be spoken to.  Small, where its tokeniser is large."""

    template: ChatTemplate | None
    tool_template: ChatTemplate | None
    special_tokens: Mapping[str, str]
    stop_ids: frozenset[int]
    markup: Markup

    @classmethod
    def load(cls, path: Path) -> "ChatFormat":
        """Read the templates and settings in the model directory `path`.  StoreError."""
        config = read_object(path / "tokenizer_config.json")
        named = read_templates(path, config)
        tokens = read_object(path / "special_tokens_map.json") | config
        special_tokens = dict(read_special_tokens(tokens))
        markup = detect_markup(path, config, named)
        ends = [special_tokens.get("eos_token"), *ends_of(markup)]
        return cls(
            template=named.get("default"),
            tool_template=named.get("tool_use"),
            special_tokens=special_tokens,
            stop_ids=frozenset(read_stop_ids(path, config, ends)),
            markup=markup,
        )

    @property
    def reads_tools(self) -> bool:
        return self.tool_template is not None or (
            self.template is not None and self.template.reads.tools
        )

    @property
    def reads_thinking(self) -> bool:
        return self.template is not None and self.template.reads.thinking


def read_object(path: Path) -> dict[str, Json]:
    """The JSON object in a small file; an empty one if there is no such file."""
    text = read_text(path)
    if text is None:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{path.name} of the model is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path.name} of the model must hold a JSON object.")
    return value


def read_text(path: Path) -> str | None:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise StoreError(
                f"{path.name} of the model has more than {MAX_CONFIG_BYTES >> 20} MiB."
            )
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path.name} of the model cannot be read: {error}.") from None


def read_templates(path: Path, config: dict[str, Json]) -> dict[str, ChatTemplate]:
    """The chat templates by name: from files of their own, else from `tokenizer_config.json`."""
    sources = dict(named_templates(config.get("chat_template")))
    sources |= dict(named_templates(read_object(path / "chat_template.json").get("chat_template")))
    sources |= dict(named_templates(read_text(path / "chat_template.jinja")))
    more = read_text(path / "additional_chat_templates" / "tool_use.jinja")
    sources |= {} if more is None else {"tool_use": more}
    return {name: ChatTemplate(source) for name, source in sources.items()}


def named_templates(found: Json) -> Iterator[tuple[str, str]]:
    """A template alone is the default one; a list names each."""
    if isinstance(found, str):
        yield "default", found
    elif isinstance(found, list):
        for item in found:
            if isinstance(item, dict) and isinstance(item.get("template"), str):
                yield str(item.get("name")), item["template"]


def read_special_tokens(tokens: dict[str, Json]) -> Iterator[tuple[str, str]]:
    for name in SPECIAL_TOKENS:
        token = tokens.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            yield name, text


def detect_markup(
    path: Path, config: dict[str, Json], templates: Mapping[str, ChatTemplate]
) -> Markup:
    """By the template that renders tools; what it leaves open, the tokens tell.

    If none does, they are described in the generic preamble, which asks for hermes' form.
    """
    chosen = [templates[name] for name in ("tool_use", "default") if name in templates]
    source = "\n".join(template.source for template in chosen)
    found = detect(source, token_test(path, config))
    if found.tools == "harmony" or any(template.reads.tools for template in chosen):
        return found
    return evolve(found, tools="hermes")


def token_test(path: Path, config: dict[str, Json]) -> Callable[[str], bool]:
    """Whether the tokeniser has a token, from where its added tokens are listed."""
    added = config.get("added_tokens_decoder")
    if isinstance(added, dict):
        return lambda token: read_added_id(added, token) is not None
    head = read_head(path / "tokenizer.json")
    return lambda token: b'"%b"' % token.encode() in head


def read_head(path: Path) -> bytes:
    """The beginning of a tokenizer.json, where it lists its added tokens."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def read_stop_ids(path: Path, config: dict[str, Json], ends: list[str | None]) -> Iterator[int]:
    """What ends an answer, by whichever of the model's files says so."""
    for file in ("generation_config.json", "config.json"):
        ids = read_object(path / file).get("eos_token_id")
        yield from (id for id in (ids if isinstance(ids, list) else [ids]) if isinstance(id, int))
    for end in filter(None, ends):
        stated = read_added_id(config.get("added_tokens_decoder"), end)
        id = read_token_id(path / "tokenizer.json", end) if stated is None else stated
        if id is not None:
            yield id


def read_added_id(added: Json, token: str) -> int | None:
    """The id of `token` in a tokenizer_config.json that lists its added tokens: not all do."""
    for id, entry in added.items() if isinstance(added, dict) else ():
        if id.isdecimal() and isinstance(entry, dict) and entry.get("content") == token:
            return int(id)
    return None
