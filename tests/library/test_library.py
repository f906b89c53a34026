"""What a host knows of its models, and what it costs to know it."""

import gc
import shutil
from collections.abc import Callable
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from helexa.conversation import ChoiceFinished, Conversation, JsonObject, Tool, ToolCallStarted
from helexa.engine.orders import Piece
from helexa.errors import (
    ContextLengthExceeded,
    ServiceUnavailable,
    StoreError,
    TemplateRenderFailed,
)
from helexa.fleet.catalogue import CatalogueModel, Cost
from helexa.fleet.known import NotFetched
from helexa.library import Library
from helexa.prompters import MOST_UNUSED
from helexa.prompts import MAX_PROMPTS, Kept, Prompts
from helexa.renderers import Renderers
from helexa.store import Store
from helexa.text.prompt import Prompt
from helexa.text.prompter import Prompter
from helexa.text.tokenizer import Tokenizer

ENTRY = CatalogueModel(id="toy", source="path:/srv/toy")
Put = Callable[..., Path]
Say = Callable[[str], Conversation]


async def text(library: Library, conversation: Conversation) -> str:
    (prompt,) = await library.prompts(await library.known(ENTRY), conversation)
    return prompt.text


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The tokenizers that were made."""
    made: list[Path] = []
    load = Tokenizer.load

    def noted(path: Path) -> Tokenizer:
        made.append(path)
        return load(path)

    monkeypatch.setattr(Tokenizer, "load", noted)
    return made


async def test_a_list_of_models_makes_no_tokenizer(
    library: Library, put: Put, loads: list[Path]
) -> None:
    path = put()
    known = await library.known(ENTRY)
    assert (known.path, known.size.num_parameters, known.limit.context) == (path, 6, 4096)
    assert known.stop_ids == {7, 260}
    assert known.defaults.temperature == 0.5
    assert not known.tool_call
    assert known.added_at > 0
    assert loads == []


async def test_many_first_askers_wait_for_one_tokenizer(
    library: Library, put: Put, say: Say, loads: list[Path]
) -> None:
    put()
    prompts = []

    async def ask(entry: CatalogueModel) -> None:
        prompts.extend(await library.prompts(await library.known(entry), say("hello")))

    async with trio.open_nursery() as nursery:
        for cost in range(5):
            nursery.start_soon(ask, evolve(ENTRY, cost=Cost(cost)))
    assert {prompt.text for prompt in prompts} == {"hello"}
    assert len(loads) == 1


async def test_a_loaded_model_reads_with_the_tokenizer_that_a_request_made(
    library: Library, put: Put, say: Say, loads: list[Path]
) -> None:
    put()
    loaded = await library.known(ENTRY)
    (prompt,) = await library.prompts(await library.known(ENTRY), say("hi"))
    reader = loaded.reader(0, say("hi"), prompt)
    (delta, end) = reader.push(Piece(1, prompt.ids[0], "length"))
    assert (delta.text, end) == ("h", ChoiceFinished(0, "length"))  # type: ignore[union-attr]
    assert len(loads) == 1


async def test_only_the_tokenizers_used_last_are_kept_and_those_of_loaded_models(
    library: Library, put: Put, say: Say, loads: list[Path]
) -> None:
    entries = [CatalogueModel(id=f"m{i}", source=f"path:/srv/m{i}") for i in range(MOST_UNUSED + 2)]
    for entry in entries:
        put(entry.source)
    loaded = await library.known(entries[0])
    for entry in entries:
        await library.prompts(await library.known(entry), say("hi"))
    gc.collect()
    del loads[:]
    await library.prompts(await library.known(entries[0]), say("hi"))
    assert loads == []  # as somebody holds it
    await library.prompts(await library.known(entries[-1]), say("hi"))
    assert loads == []  # as it was used lately
    await library.prompts(await library.known(entries[1]), say("hi"))
    assert len(loads) == 1
    assert loaded.path != loads[0].parent


async def test_files_that_were_added_anew_are_read_anew(
    library: Library, put: Put, say: Say
) -> None:
    shutil.rmtree(put(template="old"))
    put(template="old")
    assert await text(library, say("hi")) == "old"
    shutil.rmtree((await library.known(ENTRY)).path)
    put(template="new")
    assert await text(library, say("hi")) == "new"


async def test_files_that_changed_by_themselves_are_refused(library: Library, put: Put) -> None:
    (put() / "chat_template.jinja").write_text("another")
    with pytest.raises(StoreError, match="has changed"):
        await library.known(ENTRY)


async def test_a_store_that_cannot_be_read_is_told_in_words(library: Library, put: Put) -> None:
    path = put()
    (path / "helexa.json").unlink()
    (path / "helexa.json").mkdir()
    with pytest.raises(StoreError, match="could not handle toy-"):
        await library.known(ENTRY)


@pytest.mark.parametrize(
    ("entry", "kind", "told"),
    [
        (ENTRY, ServiceUnavailable, "`helexa-ctl load toy` there fetches"),
        (evolve(ENTRY, download="on_demand"), NotFetched, "not on this host"),
        (CatalogueModel(id="org/name"), ServiceUnavailable, "`helexa-ctl load org/name`"),
        (CatalogueModel(id="bare"), ServiceUnavailable, "give the entry a source"),
    ],
)
async def test_missing_files_are_told_with_the_way_to_get_them(
    library: Library, entry: CatalogueModel, kind: type, told: str
) -> None:
    with pytest.raises(ServiceUnavailable, match=told) as refused:
        await library.known(entry)
    assert type(refused.value) is kind
    if entry.id != "bare":
        assert refused.value.retry_after == 30


async def test_an_entry_without_a_source_is_what_the_store_has_under_its_id(
    library: Library, put: Put, store: Store
) -> None:
    path = put()
    entry = CatalogueModel(id=path.name)
    assert (await library.known(entry)).path == path
    await library.fetch(entry)
    await library.touch(entry)
    assert store.list()[0].last_used is not None
    with pytest.raises(ServiceUnavailable, match="give the entry a source"):
        await library.fetch(CatalogueModel(id="bare"))
    hub = put("hf:org/name")
    assert (await library.known(CatalogueModel(id="org/name"))).path == hub
    await library.fetch(CatalogueModel(id="org/name"))


async def test_a_fetch_tells_its_progress(
    library: Library, store: Store, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    told: list[tuple[str, int, int]] = []

    def add(source: str, progress: Callable[[str, int, int], None]) -> Any:
        progress("download", 1, 20)
        progress("download", 2, 20)
        return store.find(source)

    monkeypatch.setattr(store, "add", add)
    await library.fetch(ENTRY, lambda *step: told.append(step))
    assert told == [("download", 1, 20), ("download", 2, 20)]
    await library.fetch(ENTRY)


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), StoreError("odd"), KeyError("x")])
async def test_a_use_that_cannot_be_noted_hurts_nobody(
    library: Library, store: Store, put: Put, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(store, "touch", fail)
    await library.touch(ENTRY)
    monkeypatch.setattr(store, "recorded", fail)
    await library.touch(ENTRY)


# -- prompts that are too long -------------------------------------------------------------------------


async def test_a_prompt_that_cannot_fit_is_refused_before_it_is_rendered(
    library: Library, put: Put, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    known = await library.known(ENTRY)
    monkeypatch.setattr(Prompts, "_render", None)
    most = 16 * known.limit.input
    with pytest.raises(ContextLengthExceeded) as refused:
        await library.prompts(known, say("1" * (most + 1)))
    assert refused.value.message == (
        "This model's maximum context length is 4096 tokens. However, your messages have "
        "at least 3073 tokens, and 1024 are kept for the answer. Shorten the messages to 3072 tokens."
    )
    assert refused.value.param == "messages"
    assert refused.value.details == {"prompt_len": 3073, "max": 3072}


async def test_a_long_prompt_waits_for_long_ones_alone(
    library: Library, put: Put, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is tokenised another waits, and a short one does not."""
    put(template="{{ messages[-1].content[:5] }}")
    known = await library.known(evolve(ENTRY, max_context=4096))
    entered, leave, at_once = trio.Event(), trio.Event(), [0, 0]
    order = Prompter.order

    def slow(self: Prompter, conversation: Conversation, most: int | None) -> Any:
        if conversation.model == "long":
            at_once[0] += 1
            at_once[1] = max(at_once)
            trio.from_thread.run_sync(entered.set)
            trio.from_thread.run(leave.wait)
            at_once[0] -= 1
        return order(self, conversation, None)

    monkeypatch.setattr(Prompter, "order", slow)
    long = evolve(say("x" * 600_000), model="long")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(library.prompts, known, long)
        nursery.start_soon(library.prompts, known, long)
        await entered.wait()
        assert await text(library, say("short")) == "short"
        leave.set()
    assert at_once == [0, 1]


async def test_the_store_is_read_while_every_prompt_thread_is_busy(
    library: Library, put: Put, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    known = await library.known(ENTRY)
    leave, started = trio.Event(), trio.Semaphore(0)
    order = Prompter.order

    def stuck(self: Prompter, conversation: Conversation, most: int | None) -> Any:
        trio.from_thread.run_sync(started.release)
        trio.from_thread.run(leave.wait)
        return order(self, conversation, most)

    monkeypatch.setattr(Prompter, "order", stuck)
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_PROMPTS):
            nursery.start_soon(library.prompts, known, say("hi"))
        for _ in range(MAX_PROMPTS):
            await started.acquire()
        assert (await library.known(ENTRY)).path == known.path
        leave.set()


# -- counting ------------------------------------------------------------------------------------------


@pytest.fixture
def renderings(renderers: Renderers, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The orders that were rendered."""
    made: list[bytes] = []
    render = Renderers.render

    async def noted(self: Renderers, order: bytes) -> Any:
        made.append(order)
        return await render(self, order)

    monkeypatch.setattr(Renderers, "render", noted)
    return made


async def test_a_count_is_the_number_of_tokens_of_the_request_that_follows(
    library: Library, put: Put, say: Say, renderings: list[bytes]
) -> None:
    put(template="{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}")
    known = await library.known(ENTRY)
    for said in ("hi", "naïve 😀", " " * 40):
        count = await library.count(known, say(said))
        (prompt,) = await library.prompts(known, say(said))
        assert count == len(prompt.ids) > len(said) // 16
    assert len(renderings) == 3  # as what was counted is not rendered again


async def test_nobody_gets_his_prompt_sooner_because_others_sent_it(
    library: Library, put: Put, say: Say, renderings: list[bytes]
) -> None:
    put(template="{{ messages[-1].content }}")
    known = await library.known(ENTRY)
    for salt in ("ada", "bob", "ada", "bob"):
        assert await library.count(known, say("hi"), salt) == 2
        await library.prompts(known, say("hi"), salt)
    assert len(renderings) == 2


async def test_what_makes_another_prompt_is_counted_anew(
    library: Library, put: Put, say: Say, renderings: list[bytes]
) -> None:
    put(template="{{ messages[-1].content }}{{ word }}")
    known = await library.known(ENTRY)
    assert await library.count(known, say("hi")) == 2
    assert await library.count(known, evolve(say("hi"), template_kwargs=(("word", "!!!"),))) == 5
    assert await library.count(known, evolve(say("hi"), max_tokens=7, n=3)) == 2
    assert len(renderings) == 2


async def test_a_prompt_that_is_too_long_is_counted_and_not_answered(
    library: Library, put: Put, say: Say
) -> None:
    put()
    known = await library.known(ENTRY)
    long = say("x" * 100_000)
    assert await library.count(known, long) == 100_000
    with pytest.raises(ContextLengthExceeded):
        await library.prompts(known, long)
    with pytest.raises(ContextLengthExceeded, match="at least"):
        await library.count(known, say("x" * 5_000_000))


async def test_texts_are_counted_together(library: Library, put: Put) -> None:
    put()
    texts = Conversation("toy", texts=("abc", (1, 2)))
    assert await library.count(await library.known(ENTRY), texts) == 5


async def test_a_text_that_cannot_fit_is_told_of_as_the_prompt(library: Library, put: Put) -> None:
    put()
    known = await library.known(ENTRY)
    for text in ("x" * 100_000, (1,) * 100_000):
        with pytest.raises(ContextLengthExceeded, match="your prompt has at least") as refused:
            await library.prompts(known, Conversation("toy", texts=("a", text)))
        assert refused.value.param == "prompt"


async def test_prompts_are_kept_up_to_a_number_of_bytes() -> None:
    kept = Kept(most_bytes=2000)
    prompts = [Prompt(tuple(range(20)), "x") for _ in range(4)]
    for i, prompt in enumerate(prompts[:2]):
        kept.put(i, prompt)
    assert kept.get(0) is prompts[0]
    kept.put(2, prompts[2])
    assert [kept.get(i) for i in range(3)] == [prompts[0], None, prompts[2]]
    kept.put(0, prompts[3])  # made twice at once
    kept.put(3, Prompt(tuple(range(2000)), "x"))
    assert (kept.num_bytes, kept.get(0)) == (0, None)


# -- what comes with a prompt --------------------------------------------------------------------------


async def test_an_answer_must_have_the_form_that_is_asked_for(
    library: Library, put: Put, say: Say
) -> None:
    put()
    known = await library.known(ENTRY)
    (prompt,) = await library.prompts(known, evolve(say("hi"), format=JsonObject()))
    (free,) = await library.prompts(known, say("hi"))
    assert prompt.constraint is not None
    assert free.constraint is None
    assert prompt.ids == free.ids


async def test_the_tokens_of_a_prompt_are_told_with_their_scores(
    library: Library, put: Put, say: Say
) -> None:
    put()
    known = await library.known(ENTRY)
    (prompt,) = await library.prompts(known, say("ab"))
    a, b = prompt.ids
    first, second = known.score([(a, nan, ()), (b, -0.5, ((b, -0.5), (a, -1.0)))])
    assert (first.token, first.bytes, first.top, isnan(first.logprob)) == ("a", b"a", (), True)
    assert [(top.token, top.logprob) for top in second.top] == [("b", -0.5), ("a", -1.0)]


async def test_the_catalogue_may_name_the_format_of_tool_calls(
    library: Library, put: Put, say: Say
) -> None:
    put()
    tools = (Tool("weather", None, {"type": "object"}),)
    for parser, answer in [("", "Hi"), ("mistral", '[TOOL_CALLS][{"name": "weather"}]')]:
        known = await library.known(evolve(ENTRY, tool_parser=parser))
        asked = evolve(say("hi"), tools=tools)
        (prompt,) = await library.prompts(known, asked)
        reader = known.reader(0, asked, prompt)
        told: list[object] = []
        letters = await library.prompts(known, say(answer))
        for i, id in enumerate(letters[0].ids):
            last = i == len(letters[0].ids) - 1
            told += reader.push(Piece(1, id, "length" if last else None))
        assert any(isinstance(event, ToolCallStarted) for event in told) == bool(parser)


# -- a template that cannot be rendered ------------------------------------------------------------------


async def test_a_template_that_fails_is_logged_and_given_up(
    library: Library, put: Put, say: Say, caplog: pytest.LogCaptureFixture
) -> None:
    put(template="{{ raise_exception('not today') }}")
    known = await library.known(ENTRY)
    assert await text(library, say("hi")) == "user: hi\n\nassistant:"
    assert "template not rendered" in caplog.text
    with pytest.raises(TemplateRenderFailed, match="not today"):
        await library.prompts(known, evolve(say("hi"), tools=(Tool("weather", None, {}),)))


async def test_a_model_without_a_template_is_not_rendered(
    library: Library, put: Put, say: Say, renderings: list[bytes]
) -> None:
    put(template=None)
    assert await text(library, say("hi")) == "user: hi\n\nassistant:"
    assert renderings == []
