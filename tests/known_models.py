"""What a host knows of a model that nobody runs."""

from pathlib import Path

import pytest

from helexa.fleet.catalogue import CatalogueModel, SamplingDefaults
from helexa.fleet.known import Known, Size
from helexa.fleet.limits import Terms


def known_model(entry: CatalogueModel, terms: Terms, size: Size) -> Known:
    return Known(
        entry=entry,
        path=Path("/nowhere"),
        size=size,
        terms=terms,
        stop_ids=frozenset(),
        defaults=SamplingDefaults(),
        tool_call=False,
        reasoning=False,
        finish=lambda _, prompts: prompts,
        reader=lambda *_: pytest.fail("nobody reads"),
        score=lambda _: (),
    )
