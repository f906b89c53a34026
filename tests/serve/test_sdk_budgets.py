"""The SDKs at the end of a budget: they come back when a window renews, and stop at a balance."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from process import Helexa, helexa

RULES = '[[rules]]\nsay = "Hello there, friend."\n'
CATALOGUE = '[[models]]\nid = "said"\nharness = "script"\nscript = "rules.toml"\nvram_mb = 100\n'
MESSAGES = [{"role": "user", "content": "hi"}]
TRIES = 3


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, store_dir: Path) -> Iterator[Helexa]:
    folder = tmp_path_factory.mktemp("bounded")
    (folder / "models.toml").write_text(CATALOGUE)
    (folder / "rules.toml").write_text(RULES)
    options = {
        "HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"),
        "HELEXA_MODELS__PRELOAD": '["said"]',
        "CUDA_VISIBLE_DEVICES": "",
    }
    with helexa(folder / "state", store_dir, options) as process:
        yield process


def key(process: Helexa, account: str, *options: str) -> str:
    return process.ctl("keys", "create", "--account", account, *options).stdout.strip()


def refusals(process: Helexa, account: str) -> int:
    events = process.control("audit", key=account)
    return sum(event["count"] for event in events if event["kind"].startswith("refused"))


def openai_asks(process: Helexa, secret: str) -> str:
    url = process.url() + "/v1"
    with openai.OpenAI(base_url=url, api_key=secret, max_retries=TRIES) as client:
        answer = client.chat.completions.create(model="said", messages=MESSAGES, max_tokens=10)  # type: ignore[arg-type]
        return answer.choices[0].message.content or ""


def anthropic_asks(process: Helexa, secret: str) -> str:
    with anthropic.Anthropic(base_url=process.url(), api_key=secret, max_retries=TRIES) as client:
        answer = client.messages.create(model="said", messages=MESSAGES, max_tokens=10)  # type: ignore[arg-type]
        return str(answer.content[0].text)  # type: ignore[union-attr]


ASKS = {"openai": openai_asks, "anthropic": anthropic_asks}


@pytest.mark.parametrize("sdk", ASKS)
def test_a_client_waits_for_its_window_and_is_served(bounded: Helexa, sdk: str) -> None:
    secret = key(bounded, f"rolling-{sdk}", "--cap", "60", "--window", "rolling:3s")
    assert ASKS[sdk](bounded, secret) == "Hello there, friend."
    assert ASKS[sdk](bounded, secret) == "Hello there, friend."
    assert refusals(bounded, f"rolling-{sdk}") >= 1


@pytest.mark.parametrize(
    ("sdk", "error"), [("openai", openai.RateLimitError), ("anthropic", anthropic.RateLimitError)]
)
def test_a_client_stops_at_a_balance(bounded: Helexa, sdk: str, error: type[Exception]) -> None:
    secret = key(bounded, f"balance-{sdk}", "--cap", "60")
    assert ASKS[sdk](bounded, secret) == "Hello there, friend."
    with pytest.raises(error, match="budget"):
        ASKS[sdk](bounded, secret)
    assert refusals(bounded, f"balance-{sdk}") == 1


@pytest.mark.parametrize(
    ("sdk", "error"),
    [("openai", openai.AuthenticationError), ("anthropic", anthropic.AuthenticationError)],
)
def test_a_client_with_a_wrong_key_is_told_so(
    bounded: Helexa, sdk: str, error: type[Exception]
) -> None:
    key(bounded, f"right-{sdk}")
    with pytest.raises(error, match="key"):
        ASKS[sdk](bounded, "hx_wrong")
