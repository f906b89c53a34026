"""Small JSON files of what was found out once, so that it need not be found out at each load.

Their names tell all that it hangs on; what does not fit any more is simply not found.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from helexa import logs
from helexa.devices.host import describe
from helexa.engine.lean.library import is_own
from helexa.replacing import replace

log = logs.get("helexa.engine")


def digest_of(*told: object) -> str:
    """16 hexadecimal digits for a name."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def device_name(device: str) -> str:
    """Of a card or of the processor, as its maker calls it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return describe().cpu_name


def recall(path: Path) -> Any:
    """What was remembered; None where there is nothing that is sound and our own."""
    try:
        return json.loads(path.read_bytes()) if is_own(path.parent) else None
    except (OSError, ValueError, RecursionError):
        return None


def remember(path: Path, found: Any) -> None:
    """Where that cannot be, the next load finds it out again."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(path, json.dumps(found).encode())
    except OSError as error:
        log.warning("not remembered", path=str(path), reason=str(error))


def forget(path: Path) -> None:
    """Where that cannot be, nothing could be remembered either."""
    with suppress(OSError):
        path.unlink()
