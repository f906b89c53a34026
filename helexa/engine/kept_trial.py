"""The file beside a model of the store that keeps what its trial found: `packed/trial-QUANT-….json`.

Its name tells all that the finding hangs on: the files, the sources of this engine, torch, transformers,
the device, and how weights are kept.  Kept is only what our own checks found of a model whose sequences
can be computed together: whatever else went wrong in a trial may go well in the next.
"""

import hashlib
from pathlib import Path

import torch
import transformers
from attrs import asdict, frozen

from helexa.engine.kv.layers import Kind
from helexa.engine.orders import Load
from helexa.engine.quant.kept import FOLDER
from helexa.engine.remembered import device_name, digest_of, forget, recall, remember
from helexa.store.contents import contents
from helexa.store.record import RECORD

ENGINE = Path(__file__).parent


@frozen
class Found:
    """Of a model whose sequences come out right together: what its layers keep, and why it is not fused.

    `unfused` is "" if it can be.
    """

    kinds: tuple[Kind, ...]
    unfused: str


@frozen
class KeptTrial:
    path: Path

    @classmethod
    def of(cls, order: Load) -> "KeptTrial | None":
        """None for a directory that is not a model of the store."""
        if not (order.path / RECORD).is_file():
            return None
        about = f"trial-{order.quant}-{order.dtype}-{order.device.replace(':', '')}-"
        digest = digest_of(about, contents(order.path), device_name(order.device), *code())
        return cls(order.path / FOLDER / f"{about}{digest}.json")

    def read(self) -> Found | None:
        """None where nothing was kept."""
        try:
            told = recall(self.path)
            return Found(tuple(Kind(**kind) for kind in told["kinds"]), str(told["unfused"]))
        except (KeyError, TypeError):
            return None

    def write(self, found: Found) -> None:
        """In place of what was found of other files or by other code."""
        about = self.path.name.rpartition("-")[0]
        for old in self.path.parent.glob(f"{about}-*.json"):
            forget(old)
        remember(self.path, asdict(found))

    def forget(self) -> None:
        """Have the next load try again."""
        forget(self.path)


def code() -> tuple[str, ...]:
    """What computes: torch, in the form for this processor, transformers, and this engine."""
    sources = hashlib.sha256()
    for path in sorted(ENGINE.rglob("*.py")):
        sources.update(path.read_bytes())
    form = torch.backends.cpu.get_cpu_capability()
    return torch.__version__, form, transformers.__version__, sources.hexdigest()
