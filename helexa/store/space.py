"""Whether there is room: `[store] max_gb` and `min_free_gb`, in units of 10^9 bytes."""

import os
import shutil
import stat
from pathlib import Path

from attrs import frozen

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError

GB = 1_000_000_000


@frozen
class Disk:
    """The disk under a store, and what may be taken of it."""

    root: Path
    settings: Settings

    def room(self) -> int:
        """Bytes that may still be written; negative if a limit is passed already."""
        free = shutil.disk_usage(self.root).free - int(self.settings.min_free_gb * GB)
        if not self.settings.max_gb:
            return free
        return min(free, int(self.settings.max_gb * GB) - used_bytes(self.root))

    def check(self, needed: int, what: str) -> None:
        """StoreError, told with the figures, unless `needed` more bytes may be written."""
        room = self.room()
        if needed <= room:
            return
        limits = f"min_free_gb = {self.settings.min_free_gb:g}"
        if self.settings.max_gb:
            limits += f", max_gb = {self.settings.max_gb:g}"
        raise StoreError(
            f"{what} needs {needed / GB:.1f} GB in {self.root}, and there is room for "
            f"{max(room, 0) / GB:.1f} GB ([store] {limits}): remove a model (helexa models prune) "
            "or change the limits."
        )


def used_bytes(root: Path) -> int:
    """Bytes of the regular files below; a symbolic link counts nothing, a hard link its file once.

    A file that another process removes meanwhile counts nothing.
    """
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
