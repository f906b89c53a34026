"""The markup of a model, from its files."""

import json
from pathlib import Path

import pytest
from markup_reading import THINK
from tokenizers import Tokenizer as Library

from helexa.conversation import Json
from helexa.text.files import ChatFormat
from helexa.text.markup import Markup
from helexa.text.tokenizer import Tokenizer

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
CHANNELS = TEMPLATE + "{{ '<|channel|><|message|>' }}"


def put(path: Path, name: str, content: Json) -> None:
    (path / name).write_text(json.dumps(content))


def test_a_template_of_its_own_tells_the_markup(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ tools }}<arg_key><think>")
    assert ChatFormat.load(tmp_path).markup == Markup("glm", THINK)


def test_the_template_for_tools_counts_too(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": TEMPLATE},
        {"name": "tool_use", "template": "{{ tools }}[TOOL_CALLS]"},
    ]
    put(tmp_path, "tokenizer_config.json", {"chat_template": named})
    assert ChatFormat.load(tmp_path).markup == Markup("mistral", None)


@pytest.mark.parametrize(
    ("added", "think"),
    [
        ({"5": {"content": "<think>"}}, THINK),
        ({"5": {"content": "<other>"}}, None),
        ({"x": {"content": "<think>"}, "6": 7}, None),
    ],
)
def test_the_configuration_lists_the_tokens(
    tmp_path: Path, added: Json, think: tuple[str, str] | None
) -> None:
    config = {"chat_template": TEMPLATE, "added_tokens_decoder": added}
    put(tmp_path, "tokenizer_config.json", config)
    assert ChatFormat.load(tmp_path).markup.think == think


def test_else_the_tokeniser_does(tmp_path: Path, byte_level_library: Library) -> None:
    put(tmp_path, "tokenizer_config.json", {"chat_template": TEMPLATE})
    assert ChatFormat.load(tmp_path).markup.think is None
    added = [{"id": 7, "content": "<think>", "special": False}]
    put(tmp_path, "tokenizer.json", {"version": "1.0", "added_tokens": added})
    assert ChatFormat.load(tmp_path).markup.think == THINK


def test_a_model_without_a_template_has_the_markup_of_the_preamble(tmp_path: Path) -> None:
    assert ChatFormat.load(tmp_path).markup == Markup("hermes", None)


def test_a_call_in_a_channel_ends_the_answer(tmp_path: Path, byte_level: Tokenizer) -> None:
    added = {"200012": {"content": "<|call|>"}, "200002": {"content": "<|return|>"}}
    config = {"chat_template": CHANNELS, "added_tokens_decoder": added}
    put(tmp_path, "tokenizer_config.json", config)
    put(tmp_path, "tokenizer.json", {"model": {"vocab": {}}})
    form = ChatFormat.load(tmp_path)
    assert form.markup.tools == "harmony"
    assert form.stop_ids == {200012, 200002}
