"""What a host knows of its script models: another's tokenizer, and an answer ready with the prompt."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.conversation import Conversation
from helexa.engine.orders import Script, ScriptLoad
from helexa.errors import ContextLengthExceeded, ServiceUnavailable, StoreError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import NotFetched, Size
from helexa.library import Library
from helexa.text.tokenizer import Tokenizer

Put = Callable[..., Path]
Say = Callable[[str], Conversation]
END = 260  # of the toy tokenizer
RULES = """
load_seconds = 1
[[rules]]
when = "b"
say = "ab<|end|>c"
tokens_per_second = 5
fail_after_tokens = 3
load_seconds = 2.5
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., CatalogueModel]:
    """An entry of a script model whose rules are those."""

    def script(rules: str = RULES, **options: object) -> CatalogueModel:
        file = tmp_path / "rules.toml"
        file.write_text(rules)
        options.setdefault("tokenizer", "path:/srv/toy")
        return CatalogueModel(id="s", harness="script", script=str(file), **options)  # type: ignore[arg-type]

    return script


Entry = Callable[..., CatalogueModel]


async def test_a_script_model_has_a_window_and_no_weights(
    library: Library, put: Put, script: Entry
) -> None:
    put()
    known = await library.known(script(vram_mb=70))
    assert known.size == Size(0, 0, 0)
    assert (known.limit.context, known.limit.output) == (131072, 8192)
    assert known.script == ScriptLoad(2.5, 70 << 20)
    assert (await library.known(script())).script == ScriptLoad(2.5, 1 << 20)
    for context in (4096, 200_000):
        assert (await library.known(script(max_context=context))).limit.context == context


async def test_an_answer_comes_with_the_prompt_and_special_tokens_in_it_are_such(
    library: Library, put: Put, script: Entry, say: Say
) -> None:
    path = put()
    known = await library.known(script())
    tokenizer = Tokenizer.load(path / "tokenizer.json")
    (prompt,) = await library.prompts(known, say("abc"))
    a, b, c = (tokenizer.encode(letter)[0] for letter in "abc")
    assert prompt.ids == (a, b, c)
    assert prompt.script == Script((a, b, END, c, END), 5.0, 3)
    (other,) = await library.prompts(known, say("x"))
    assert other.script is not None
    assert len(other.script.tokens) == len("No rule of this script model fits the last turn.") + 1


async def test_every_text_to_go_on_with_is_matched_by_itself(
    library: Library, put: Put, script: Entry
) -> None:
    put()
    known = await library.known(script())
    texts = Conversation("s", texts=("xx", "xbx", (1, 2)))
    found = await library.prompts(known, texts)
    assert [one.script.fail_after_tokens for one in found if one.script] == [None, 3, None]


async def test_the_same_files_serve_a_model_of_weights_beside_it(
    library: Library, put: Put, script: Entry
) -> None:
    put()
    real = CatalogueModel(id="toy", source="path:/srv/toy")
    for _ in range(2):
        assert (await library.known(script())).size.num_parameters == 0
        assert (await library.known(real)).size.num_parameters == 6
        assert (await library.known(real)).script is None


async def test_a_tokenizer_may_be_a_directory_and_is_read_again_when_it_changed(
    library: Library, put: Put, script: Entry, say: Say, tmp_path: Path
) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    stored = put()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(stored / file, folder)
    (folder / "chat_template.jinja").write_text("old")
    entry = script(tokenizer=str(folder))
    await library.fetch(entry)
    await library.touch(entry)
    (prompt,) = await library.prompts(await library.known(entry), say("x"))
    assert prompt.text == "old"
    (folder / "chat_template.jinja").write_text("new")
    (folder / "tokenizer.json").touch()
    (prompt,) = await library.prompts(await library.known(entry), say("x"))
    assert prompt.text == "new"
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        await library.known(entry)


async def test_rules_are_read_for_every_load(library: Library, put: Put, script: Entry) -> None:
    put()
    assert (await library.known(script())).script == ScriptLoad(2.5, 1 << 20)
    assert (await library.known(script("load_seconds = 7"))).script == ScriptLoad(7.0, 1 << 20)
    with pytest.raises(
        StoreError, match=r"rules of s have a mistake: .*rules\.toml:1: is not TOML"
    ):
        await library.known(script("load_seconds ="))


async def test_a_tokenizer_without_an_end_is_refused(
    library: Library, put: Put, script: Entry
) -> None:
    path = put()
    folder = path.parent / "endless"
    folder.mkdir()
    shutil.copy(path / "tokenizer.json", folder)
    with pytest.raises(StoreError, match="names no token that ends an answer"):
        await library.known(script(tokenizer=str(folder)))


async def test_a_missing_tokenizer_is_told_with_the_way_to_get_it(
    library: Library, script: Entry
) -> None:
    with pytest.raises(NotFetched, match="not on this host"):
        await library.known(script(download="on_demand"))
    with pytest.raises(ServiceUnavailable, match="`helexa-ctl load s` there fetches"):
        await library.known(script())
    for ask in (library.known, library.fetch):
        with pytest.raises(ServiceUnavailable, match="The store has no model 'bare'"):
            await ask(script(tokenizer="bare"))


async def test_a_prompt_beyond_the_window_is_refused(
    library: Library, put: Put, script: Entry, say: Say
) -> None:
    put()
    known = await library.known(script(max_context=4096))
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 4096 tokens"):
        await library.prompts(known, say("1" * 100_000))
