"""Why a context limit is what it is, as a person is told."""

import pytest
from attrs import evolve
from known_models import known_model

from helexa.control import screen
from helexa.control.limits import why_limit
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known, Size
from helexa.fleet.limits import PrefillRate, Terms
from helexa.fleet.pool import Pool
from helexa.fleet.quant import Choice

TERMS = Terms(
    262_144,
    kv_budget_mb=20_000,
    prefill_limit_seconds=120,
    kv_bytes_per_token=65_536,
    free_mb=9254,
    spare_mb=3548,
    prefill_rate=PrefillRate(850.0, measured=True),
)


def known(terms: Terms) -> Known:
    return known_model(CatalogueModel("big"), terms, Size(0, 0, 0))


def test_every_term_is_told_and_the_one_that_binds_is_pointed_at() -> None:
    assert screen.why_limit(why_limit(known(TERMS), "loaded")) == [
        "big (loaded): context 91136 = input 82944 + output 8192, which it keeps while it is loaded",
        "weights: none",
        "",
        "    TERM               TOKENS  FROM",
        "    positions          262144  what the model was made for",
        "    max_context             -  max_context is not set",
        "    kv_budget          319488  kv_budget_mb = 20000 at 64.0 KB a token",
        "->  memory              91136  9254 MB free, less 3548 kept spare and 0 for weights: "
        "5706 MB at 64.0 KB a token",
        "    prefill            101376  120 s at 850 tokens/s, measured",
        "    max_prompt_tokens       -  [limits] max_prompt_tokens is not set",
        "    output_reserve          -  8192 of the context are kept for the answer: at most 8192, "
        "and a quarter",
    ]


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        ({"free_mb": 0}, "memory", "it is not known how much is free"),
        ({"prefill_rate": None}, "memory", "nothing is computed, so nothing is kept"),
        ({"prefill_rate": None}, "prefill", "nothing is computed, so it takes no time"),
        ({"prefill_limit_seconds": 0.0}, "prefill", "prefill_limit_seconds = 0 is no bound"),
        ({"prefill_rate": PrefillRate()}, "prefill", "120 s at 800 tokens/s, not measured yet"),
        ({"max_context": 5000}, "max_context", "max_context of its entry"),
        (
            {"max_prompt_tokens": 5000},
            "max_prompt_tokens",
            "[limits] max_prompt_tokens; it bounds the input alone",
        ),
        (
            {"output_reserve": 500},
            "output_reserve",
            "output_reserve = 500; 500 of the context are kept for the answer",
        ),
        (
            {"kv_window_bytes": 8 << 20},
            "kv_budget",
            "kv_budget_mb = 20000 at 64.0 KB a token beside 8 MB for windows (1 of 8.0 MB)",
        ),
        (
            {"kv_window_bytes": 8 << 20, "sequences": 16, "kv_dtype": "int8"},
            "kv_budget",
            "kv_budget_mb = 20000 at 64.0 KB a token in int8 beside 128 MB for windows (16 of 8.0 MB)",
        ),
        ({"kv_bytes_per_token": 0}, "kv_budget", "kv_budget_mb = 20000"),
        ({"kv_budget_mb": 0}, "kv_budget", "kv_budget_mb is not set"),
    ],
)
def test_a_term_says_where_it_comes_from(change: dict[str, object], name: str, text: str) -> None:
    told = why_limit(known(evolve(TERMS, **change)), "unloaded")
    assert told["limit_estimated"]
    (term,) = [each for each in told["terms"] if each["name"] == name]
    assert term["from"] == text


def test_a_loaded_model_tells_what_it_has_as_it_was_measured() -> None:
    pool = Pool(tokens=4096, bytes_per_token=90_112, alone="a layer has a state of its own")
    told = screen.why_limit(why_limit(known(TERMS), "loaded", pool))
    assert (
        " ".join(told[-1].split())
        == "kv_pool 4096 what it has, for all sequences together: 352 MB at 88.0 KB a token; "
        "they run one at a time, as a layer has a state of its own"
    )


def test_an_estimate_is_called_one() -> None:
    (first, *_) = screen.why_limit(why_limit(known(TERMS), "failed"))
    assert first.endswith("an estimate: a load finds what is free then")


def test_a_model_whose_sequences_run_alone_says_why() -> None:
    told = {"id": "m", "status": "loaded", "alone": "a layer has a state of its own"}
    assert screen.models([told])[1].endswith("one at a time: a layer has a state of its own")


def test_how_the_weights_are_kept_is_told_with_the_reason() -> None:
    choice = Choice("int4", "measured: int4 0.8 s, none 4 s")
    told = screen.why_limit(why_limit(known(TERMS), "loaded", choice=choice))
    assert told[1] == "weights: int4 (measured: int4 0.8 s, none 4 s)"
