"""Clients of every dialect at once, more than there are places: each is served, and nothing stays open."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest
from attrs import frozen
from process import AT_REST, Helexa
from script_models import SAID

pytestmark = pytest.mark.real

NUM_CLIENTS = 64
RETRIES = 20  # the line before the model is far shorter than the crowd


@frozen
class Crowd:
    openai: openai.OpenAI
    anthropic: anthropic.Anthropic

    def by_chat(self) -> str:
        said: list[Any] = [{"role": "user", "content": "hi"}]
        answer = self.openai.chat.completions.create(model="scripted", messages=said)
        return answer.choices[0].message.content or ""

    def by_completions(self) -> str:
        return self.openai.completions.create(model="scripted", prompt="hi").choices[0].text

    def by_responses(self) -> str:
        return self.openai.responses.create(model="scripted", input="hi").output_text

    def by_messages(self) -> str:
        said: list[Any] = [{"role": "user", "content": "hi"}]
        answer: Any = self.anthropic.messages.create(model="scripted", max_tokens=50, messages=said)
        text: str = answer.content[0].text
        return text

    def leaving(self) -> str:
        """One that goes in the middle of its answer."""
        with self.openai.responses.create(model="scripted", input="slowly", stream=True) as stream:
            next(iter(stream))
        return SAID


@pytest.fixture
def crowd(scripts: Helexa) -> Iterator[Crowd]:
    with (
        openai.OpenAI(
            base_url=scripts.url() + "/v1", api_key="none", max_retries=RETRIES
        ) as of_openai,
        anthropic.Anthropic(
            base_url=scripts.url(), api_key="none", max_retries=RETRIES
        ) as of_anthropic,
    ):
        yield Crowd(of_openai, of_anthropic)


def test_a_crowd_of_clients_is_served_and_leaves_nothing_open(
    scripts: Helexa, crowd: Crowd
) -> None:
    ways: list[Callable[[], str]] = [
        crowd.by_chat,
        crowd.by_completions,
        crowd.by_responses,
        crowd.by_messages,
        crowd.leaving,
    ]
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        answers = list(pool.map(lambda i: ways[i % len(ways)](), range(NUM_CLIENTS)))
    assert set(answers) == {SAID}
    scripts.wait_for_rest()
    assert scripts.status["open"] == AT_REST
    assert not scripts.events("an application failed")
