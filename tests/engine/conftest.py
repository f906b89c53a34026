from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys import make_toy

from helexa.engine.pace import Pace

Toy = Callable[..., Path]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The directory of a toy model, made once for each architecture and set of changes."""
    made: dict[str, Path] = {}

    def get(architecture: str = "llama", **changes: Any) -> Path:
        key = f"{architecture} {sorted(changes.items())}"
        if key not in made:
            made[key] = make_toy(tmp_path_factory.mktemp(architecture), architecture, **changes)
        return made[key]

    return get


@pytest.fixture(autouse=True)
def _steps_take_no_time(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What shares a step would hang on how fast this machine is just now."""
    if request.path.name != "test_pace.py":
        monkeypatch.setattr(Pace, "measure", lambda *_: None)
