"""Writing a configuration and reading it back, away from what this machine has in /etc."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.config.read import read_all, read_config
from helexa.config.schema import Config
from helexa.errors import ConfigError

Read = Callable[..., Config]


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    return tmp_path / "nowhere.toml"


@pytest.fixture
def read(tmp_path: Path, nowhere: Path) -> Read:
    """The configuration that a text and an environment make."""

    def read(text: str, environ: dict[str, str] | None = None) -> Config:
        file = tmp_path / "helexa.toml"
        file.write_text(text)
        return read_config(file, environ or {}, nowhere)

    return read


@pytest.fixture
def mistakes(read: Read, tmp_path: Path) -> Callable[..., list[str]]:
    """The mistakes of a text and an environment, with the file's name cut short."""

    def mistakes(text: str, environ: dict[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, environ)
        return [mistake.replace(f"{tmp_path}/", "") for mistake in caught.value.mistakes]

    return mistakes


@pytest.fixture
def both_mistakes(tmp_path: Path, nowhere: Path) -> Callable[[str, str], list[str]]:
    """The mistakes of a configuration and a catalogue together."""

    def both_mistakes(config: str, catalogue: str) -> list[str]:
        file, models = tmp_path / "helexa.toml", tmp_path / "models.toml"
        file.write_text(config)
        models.write_text(catalogue)
        with pytest.raises(ConfigError) as caught:
            read_all(file, {}, nowhere, models)
        return [mistake.replace(f"{tmp_path}/", "") for mistake in caught.value.mistakes]

    return both_mistakes
