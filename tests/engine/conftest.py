from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys import make_toy

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
