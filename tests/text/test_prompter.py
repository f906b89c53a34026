import json
from pathlib import Path

import pytest
from attrs import evolve
from tokenizers import Tokenizer as Library
from tokenizers import normalizers, processors
from transformers import AutoTokenizer

from helexa.conversation import (
    Conversation,
    Image,
    Json,
    Message,
    Part,
    Text,
    Thinking,
    Tool,
    ToolResult,
)
from helexa.errors import InvalidRequest, StoreError, VisionUnsupported
from helexa.store import StoredModel
from helexa.text.files import ChatFormat
from helexa.text.length import PromptTooLong
from helexa.text.prompt import Prompt
from helexa.text.prompter import Prompter
from helexa.text.render import Rendered, render
from helexa.text.template import plain
from helexa.text.tokenizer import Tokenizer

HELLO = Conversation("m", (Message("user", (Text("Paris"),)),))
DEFAULT = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}<|end|>"


@pytest.fixture
def model(tmp_path: Path, byte_level_library: Library) -> Path:
    byte_level_library.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def prompt_of(prompter: Prompter, conversation: Conversation) -> Prompt:
    """As `helexa.prompts` makes it, rendered in this process."""
    order = prompter.order(conversation)
    rendered = plain(conversation) if order is None else render(order)
    assert isinstance(rendered, Rendered)
    return prompter.prompt(rendered)


def put(model: Path, name: str, value: Json) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text(value if isinstance(value, str) else json.dumps(value))


def test_the_prompt_is_the_rendered_template_in_tokens(model: Path, byte_level: Tokenizer) -> None:
    tokens = {"bos_token": {"content": "<|begin|>"}, "eos_token": "<|end|>", "pad_token": None}
    put(model, "tokenizer_config.json", tokens | {"chat_template": DEFAULT})
    prompt = prompt_of(Prompter.load(model), HELLO)
    assert prompt.text == "<|begin|>Paris<|end|>"
    assert prompt.ids == byte_level.encode("<|begin|>Paris<|end|>")
    assert len(prompt.ids) < 8
    assert not prompt.continues


def test_what_was_said_is_not_shown_by_accident(model: Path) -> None:
    assert repr(prompt_of(Prompter.load(model), HELLO)) == "Prompt(continues=False)"


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template.jinja": "jinja"},
        {"chat_template.json": {"chat_template": "jinja"}},
        {"tokenizer_config.json": {"chat_template": "jinja"}},
        {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "jinja"}]}},
        {"tokenizer_config.json": {"chat_template": "old"}, "chat_template.jinja": "jinja"},
    ],
    ids=str,
)
def test_the_template_is_found_where_models_keep_it(model: Path, files: dict[str, Json]) -> None:
    for name, content in files.items():
        put(model, name, content)
    assert prompt_of(Prompter.load(model), HELLO).text == "jinja"


@pytest.mark.parametrize("place", ["list", "file"])
def test_a_template_for_tools_is_used_for_tools(model: Path, place: str) -> None:
    named = [
        {"name": "default", "template": "d"},
        {"name": "tool_use", "template": "{{ tools[0].function.name }}"},
    ]
    if place == "list":
        put(model, "tokenizer_config.json", {"chat_template": named})
    else:
        put(model, "chat_template.jinja", named[0]["template"])
        put(model, "additional_chat_templates/tool_use.jinja", named[1]["template"])
    prompter = Prompter.load(model)
    tools = (Tool("weather", None, {}),)
    with_tools = Conversation("m", HELLO.messages, tools=tools)
    assert (prompt_of(prompter, HELLO).text, prompt_of(prompter, with_tools).text) == (
        "d",
        "weather",
    )
    assert prompter.format.reads_tools


def test_a_model_without_a_template_gets_the_plain_form(model: Path) -> None:
    prompter = Prompter.load(model)
    assert prompt_of(prompter, HELLO).text == "user: Paris\n\nassistant:"
    assert not prompter.format.reads_tools
    assert not prompter.format.reads_thinking


def test_what_ends_an_answer_is_gathered_from_all_files(model: Path, byte_level: Tokenizer) -> None:
    put(model, "generation_config.json", {"eos_token_id": [7, 8]})
    put(model, "config.json", {"eos_token_id": 9})
    put(model, "tokenizer_config.json", {"eos_token": "<|end|>"})
    assert ChatFormat.load(model).stop_ids == {7, 8, 9, byte_level.token_id("<|end|>")}


def test_a_model_that_names_no_end_has_none(model: Path) -> None:
    assert ChatFormat.load(model).stop_ids == frozenset()


@pytest.mark.parametrize(
    "added", [{"5": {"content": "<|end|>"}}, {"x": 1, "3": "<|end|>"}, 7, None]
)
def test_the_id_of_the_end_is_taken_from_where_it_stands_first(
    model: Path, byte_level: Tokenizer, added: Json
) -> None:
    put(model, "tokenizer_config.json", {"eos_token": "<|end|>", "added_tokens_decoder": added})
    stated = 5 if isinstance(added, dict) and "5" in added else byte_level.token_id("<|end|>")
    assert ChatFormat.load(model).stop_ids == {stated}


@pytest.mark.parametrize(
    ("vocabulary", "ids"),
    [({"a": 3, "e": 9}, {9}), ([["a", 0.5], ["e", -1.0]], {1}), ({}, set()), (None, set())],
)
def test_the_end_may_be_a_token_like_any_other(
    tmp_path: Path, vocabulary: Json, ids: set[int]
) -> None:
    put(tmp_path, "tokenizer.json", {"model": {"vocab": vocabulary}})
    put(tmp_path, "tokenizer_config.json", {"eos_token": "e"})
    assert ChatFormat.load(tmp_path).stop_ids == ids


@pytest.mark.parametrize("content", ["nonsense", "[]", "{}", '{"model": {"vocab": [1]}}'])
def test_a_tokenizer_in_which_the_end_cannot_be_found_is_one_clear_error(
    tmp_path: Path, content: str
) -> None:
    put(tmp_path, "tokenizer.json", content)
    put(tmp_path, "tokenizer_config.json", {"eos_token": "e"})
    with pytest.raises(StoreError, match="malformed"):
        ChatFormat.load(tmp_path)


PICTURE = Image("data:image/png;base64,AA")


@pytest.mark.parametrize("part", [PICTURE, ToolResult("c", (PICTURE,))])
def test_a_picture_is_refused(model: Path, part: Part) -> None:
    messages = (*HELLO.messages, Message("user", (part,)))
    with pytest.raises(VisionUnsupported) as refused:
        Prompter.load(model).order(Conversation("m", messages))
    assert refused.value.param == "messages[1].content"
    assert refused.value.details["model_id"] == "m"
    assert refused.value.details["suggestion"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("special_tokens_map.json", "nonsense"),
        ("generation_config.json", "nonsense"),
    ],
)
def test_a_malformed_file_is_one_clear_error(model: Path, name: str, content: str) -> None:
    put(model, name, content)
    with pytest.raises(StoreError, match=name):
        Prompter.load(model)


def test_values_of_the_wrong_kind_are_passed_over(model: Path) -> None:
    put(model, "tokenizer_config.json", {"chat_template": 3, "eos_token": [1], "bos_token": {}})
    put(model, "config.json", {"eos_token_id": "two"})
    form = ChatFormat.load(model)
    assert (form.template, form.special_tokens, form.stop_ids) == (
        None,
        {},
        frozenset(),
    )


@pytest.mark.real
def test_the_demo_model_is_asked_as_it_was_trained(demo_model: StoredModel) -> None:
    prompter = Prompter.load(demo_model.path)
    prompt = prompt_of(prompter, HELLO)
    assert prompt.text.endswith("<|im_start|>user\nParis<|im_end|>\n<|im_start|>assistant\n")
    assert prompter.format.stop_ids == {2}


# -- texts as they are ---------------------------------------------------------------------------------

TOKENS = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}


def ids_of(model: Path, *texts: str | tuple[int, ...]) -> list[tuple[int, ...]]:
    found = Prompter.load(model).texts(Conversation("m", texts=texts))
    return [prompt.ids for prompt in found]


@pytest.mark.parametrize("processor", [None, "bos", "both"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"add_bos_token": True},
        {"add_bos_token": False},
        {"add_eos_token": True},
        {"add_bos_token": True, "add_eos_token": True},
        {"add_bos_token": None},
    ],
    ids=str,
)
def test_a_text_has_the_tokens_that_transformers_gives_it(
    model: Path, byte_level_library: Library, settings: dict[str, Json], processor: str | None
) -> None:
    library = Library.from_str(byte_level_library.to_str())
    if processor is not None:
        special = [(token, library.token_to_id(token)) for token in TOKENS.values()]
        single = "<|begin|> $A" if processor == "bos" else "<|begin|> $A <|end|>"
        library.post_processor = processors.TemplateProcessing(
            single=single, pair=None, special_tokens=special
        )
    library.save(str(model / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast"}
    put(model, "tokenizer_config.json", {**TOKENS, **named, **settings})
    theirs = AutoTokenizer.from_pretrained(model)
    texts = ("Paris", "<|end|> naïve", " 😀")
    assert ids_of(model, *texts) == [tuple(theirs(text).input_ids) for text in texts]


def test_a_text_that_has_no_tokens_is_refused_with_its_place(
    model: Path, byte_level_library: Library
) -> None:
    library = Library.from_str(byte_level_library.to_str())
    library.normalizer = normalizers.Strip()
    library.save(str(model / "tokenizer.json"))
    with pytest.raises(InvalidRequest) as refused:
        ids_of(model, "Paris", "  ")
    assert refused.value.param == "prompt[1]"


def test_ids_are_taken_as_they_are_and_their_text_is_told(
    model: Path, byte_level: Tokenizer
) -> None:
    given = byte_level.encode("<|begin|>Paris 😀")
    (prompt,) = Prompter.load(model).texts(Conversation("m", texts=(given,)))
    assert (prompt.ids, prompt.text, prompt.continues) == (given, "<|begin|>Paris 😀", True)


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**60])
def test_ids_that_are_no_tokens_are_refused_with_their_place(model: Path, wrong: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{wrong}, which is no token") as refused:
        ids_of(model, "a", (1, wrong))
    assert refused.value.param == "prompt[1]"


def test_every_text_may_be_too_long_and_all_of_them_together(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompter = Prompter.load(model)
    for text in ("x" * 100_000, (1,) * 201):
        with pytest.raises(PromptTooLong):
            list(prompter.texts(Conversation("m", texts=("a", text)), 100))
    (prompt,) = prompter.texts(Conversation("m", texts=((1,) * 101,)), 100)
    assert len(prompt.ids) == 101  # a little too long: whoever asked tells it
    monkeypatch.setattr("helexa.text.prompter.MAX_TEXTS_CHARACTERS", 20)
    with pytest.raises(InvalidRequest, match="20 characters at most") as refused:
        ids_of(model, "x" * 11, "y" * 10)
    assert refused.value.param == "prompt"


def test_gpt_oss_is_told_of_effort_in_its_own_words(model: Path) -> None:
    template = "<|channel|>{{ reasoning_effort }}{{ messages and '' }}{# <|message|> #}"
    put(model, "chat_template.jinja", template)
    prompter = Prompter.load(model)
    for effort, told in [("minimal", "low"), ("medium", "medium"), ("xhigh", "high")]:
        asked = evolve(HELLO, thinking=Thinking(effort=effort))
        assert prompt_of(prompter, asked).text == f"<|channel|>{told}"
    put(model, "chat_template.jinja", "{{ reasoning_effort }}{{ messages and '' }}")
    asked = evolve(HELLO, thinking=Thinking(effort="minimal"))
    assert prompt_of(Prompter.load(model), asked).text == "minimal"
