"""gpt-oss's channels."""

import pytest
from markup_reading import called, outputs_of, read

from helexa.conversation import Json
from helexa.text.markup import Arguments, Call, Ended, Say, Think

PROMPT = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
AFTER: Json = {"prompt": PROMPT}
PARIS = '{"city": "Paris"}'
WEATHER = ("get_weather", PARIS)
TO = "to=functions.get_weather"


def test_thoughts_and_an_answer() -> None:
    text = (
        "<|channel|>analysis<|message|>The user greets.<|end|><|start|>assistant<|channel|>final"
        "<|message|>Hello.\nHow are you?<|return|>"
    )
    told = read("harmony", text, **AFTER)
    assert (told.thought, told.text) == ("The user greets.", "Hello.\nHow are you?")
    assert read("harmony", text, tools=(), **AFTER) == told


@pytest.mark.parametrize(
    "header",
    [
        f"<|channel|>commentary {TO} <|constrain|>json",
        f"<|channel|>commentary {TO}<|constrain|>json",
        f"<|channel|>commentary {TO}",
        f"<|channel|>analysis {TO} code",
        f" {TO}<|channel|>commentary <|constrain|>json",
        f"<|channel|>commentary {TO} json",
    ],
)
@pytest.mark.parametrize("end", ["<|call|>", "<|end|>", ""])
def test_a_call_has_a_recipient_wherever_it_stands(header: str, end: str) -> None:
    told = read("harmony", f"{header}<|message|>{PARIS}{end}", **AFTER)
    assert (told.text, told.calls) == ("", called(WEATHER))


def test_thoughts_a_preamble_and_several_calls_in_order() -> None:
    text = (
        "<|channel|>analysis<|message|>Look.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I look it up.<|end|>"
        f"<|start|>assistant<|channel|>commentary {TO} <|constrain|>json<|message|>{PARIS}<|call|>"
        "<|start|>assistant<|channel|>commentary to=functions.ping <|constrain|>json<|message|><|call|>"
        "<|start|>assistant to=functions.f<|channel|>commentary<|message|>words<|call|>"
    )
    outputs = outputs_of("harmony", [text], **AFTER)
    assert [output.text if isinstance(output, Say | Think) else output for output in outputs] == [
        "Look.",
        "I look it up.",
        *(Call("get_weather"), Arguments(PARIS), Ended()),
        *(Call("ping"), Arguments("{}"), Ended()),
        *(Call("f"), Arguments("words")),
    ]
    assert read("harmony", text, **AFTER).calls[-1] == ["f", "words", False]


def test_a_call_that_breaks_off_keeps_what_was_written() -> None:
    text = f"<|channel|>commentary {TO} <|constrain|>json<|message|>" + '{"city": "Par'
    assert read("harmony", text, cut=True, **AFTER).calls == [
        ["get_weather", '{"city": "Par', False]
    ]


def test_a_call_nobody_offered_is_text() -> None:
    text = f"<|channel|>commentary {TO}<|message|>{PARIS}<|call|>"
    assert read("harmony", text, tools=(), **AFTER).text == PARIS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Just an answer.", "Just an answer."),
        ("Just an answer.<|end|>", "Just an answer."),
        ("<|message|>An answer", "An answer"),
        ("<|channel|>odd<|message|>An answer", "An answer"),
        ("<|channel|>analysis", ""),
        ("<|channel|>final<|message|>", ""),
        ("<|channel|>final<|message|>a<|channel|>final<|message|>b", "ab"),
        ("<|channel|>final<|message|>a < b <| c", "a < b <| c"),
        ("", ""),
    ],
)
def test_an_answer_without_this_or_that(text: str, said: str) -> None:
    told = read("harmony", text, **AFTER)
    assert (told.text, told.thought, told.calls) == (said, "", [])


def test_a_header_without_end_is_text() -> None:
    text = "<|channel|>" + "x" * 3000
    assert read("harmony", text, **AFTER).text == text


@pytest.mark.parametrize(
    ("begun", "text", "thought"),
    [
        ("<|channel|>final<|message|>Hel", "lo", ""),
        ("<|channel|>analysis<|message|>", "", "lo"),
        ("<|channel|>analysis<|message|>Hel", "", "lo"),
        ("<|channel|>final<|message|>", "lo", ""),
    ],
)
def test_the_prompt_may_have_begun_the_message(begun: str, text: str, thought: str) -> None:
    told = read("harmony", "lo<|end|>", prompt=PROMPT + begun)
    assert (told.text, told.thought) == (text, thought)


def test_the_prompt_may_have_begun_a_call() -> None:
    begun = f"<|channel|>commentary {TO} <|constrain|>json<|message|>"
    assert read("harmony", PARIS, prompt=PROMPT + begun).calls == called(WEATHER)
    begun = f"<|channel|>commentary {TO}"
    told = read("harmony", f" <|constrain|>json<|message|>{PARIS}", prompt=PROMPT + begun)
    assert told.calls == called(WEATHER)
