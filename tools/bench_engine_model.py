"""The model that is measured: where it lies, the number format it runs in, and prompts for it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attrs import frozen

from helexa.config.schema import Store as StoreSettings
from helexa.devices.compatibility import dotted
from helexa.devices.host import ROOT, cpu_flags
from helexa.devices.survey import survey
from helexa.engine.orders import Dtype
from helexa.fleet.dtype import choose_dtype
from helexa.store import Store
from helexa.text.tokenizer import Tokenizer

TEXT = Path(__file__).parent.parent / "LICENSE"

WantedDtype = Literal["auto", "fp32", "bf16", "fp16"]


@frozen
class Text:
    """Prompts cut from one text, each beginning with a number of its own."""

    ids: tuple[int, ...]
    encode: Callable[[str], tuple[int, ...]]

    def prompt(self, number: int, length: int) -> list[int]:
        head = self.encode(f"{number}. ")
        start = number * 977 % len(self.ids)
        wrapped = self.ids[start:] + self.ids * (length // len(self.ids) + 1)
        return [*head, *wrapped][:length]


def find_model(source: str) -> tuple[Path, Text]:
    """The prepared model, fetched if the store has it not."""
    directory = Path(os.environ.get("HELEXA_STORE__DIR") or Path.home() / ".cache" / "helexa-test")
    path = Store(StoreSettings(), directory).add(source).path
    tokenizer = Tokenizer.load(path / "tokenizer.json")
    return path, Text(tokenizer.encode(TEXT.read_text()), tokenizer.encode)


def dtype_on(device: str, wanted: WantedDtype) -> Dtype:
    capability = None
    if device != "cpu":
        index = int(device.partition(":")[2] or 0)
        capability = next(
            (dotted(c.capability) for c in survey(ROOT).cards if c.index == index), None
        )
    return choose_dtype(wanted, capability, cpu_flags())
