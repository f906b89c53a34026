"""`helexa-ctl capture KEY --for 10m`: one key's prompts and answers, written to a private file.

The only place that ever keeps them.  A window is for one key, ends by itself, and does not survive
a restart.
"""

import errno
import json
import os
import re
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import trio
from attrs import define, field, frozen

from helexa import logs

log = logs.get("helexa.capture")

LONGEST_SECONDS = 24 * 3600.0
MOST_BYTES = 1 << 30  # of one key's file

Kind = Literal["request", "answer"]


@frozen
class Window:
    """`until` is on Trio's clock."""

    path: Path
    until: float


@define(eq=False)
class Capture:
    """Which keys are captured, and until when."""

    _directory: Path  # made when the first window opens
    _windows: dict[str, Window] = field(factory=dict)
    _one_at_a_time: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1))

    def open(self, key_id: str, seconds: float, now: float) -> Path:
        """Capture `key_id` for `seconds` from `now` on; the file is what is returned.  May raise OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._directory / file_name(key_id)
        os.close(open_private(path))
        self._windows[key_id] = Window(path, now + min(seconds, LONGEST_SECONDS))
        return path

    def close(self, key_id: str) -> None:
        self._windows.pop(key_id, None)

    def active(self, key_id: str, now: float) -> bool:
        window = self._windows.get(key_id)
        if window is not None and now >= window.until:
            self.close(key_id)
            return False
        return window is not None

    async def write(self, key_id: str, request_id: str, kind: Kind, body: Any) -> None:
        """Add a request or an answer (JSON, text or bytes) if `key_id` is captured now.

        A file that cannot be written, or has become too large, ends the window.
        """
        if not self.active(key_id, trio.current_time()):
            return
        path = self._windows[key_id].path
        entry = {
            "time": time.time(),
            "request_id": request_id,
            "kind": kind,
            "body": readable(body),
        }
        try:
            await trio.to_thread.run_sync(append, path, entry, limiter=self._one_at_a_time)
        except OSError as error:
            self.close(key_id)
            log.error("capture ended", key=key_id, reason=error.strerror)


def append(path: Path, entry: dict[str, Any]) -> None:
    line = json.dumps(entry).encode() + b"\n"
    with os.fdopen(open_private(path), "ab") as file:
        if file.tell() + len(line) > MOST_BYTES:
            raise OSError(errno.EFBIG, f"the file would grow beyond {MOST_BYTES} bytes")
        file.write(line)


def open_private(path: Path) -> int:
    """The descriptor of a file that its owner alone may read, made if absent."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def readable(body: Any) -> Any:
    return body.decode(errors="replace") if isinstance(body, bytes | bytearray) else body


def file_name(key_id: str) -> str:
    """Readable, harmless and its own for every key."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", key_id)[:60]
    return f"{plain}-{sha256(key_id.encode(errors='replace')).hexdigest()[:8]}.jsonl"
