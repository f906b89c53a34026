"""What build runs here: our version and commit, and the versions of what it stands on."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from helexa import __version__

GIT_SECONDS = 2.0


def build_info() -> dict[str, Any]:
    """The answer of GET /version, as of now: ask when the process starts.  Blocks: it asks git where
    this is a checkout.

    `git_sha` is None where it is not; `dirty` tells of uncommitted changes.
    """
    checkout = Path(__file__).parent.parent
    head = _git(checkout, "log", "-1", "--abbrev=12", "--format=%h %cI")
    sha, _, when = (head or "").partition(" ")
    return {
        "package_version": __version__,
        "git_sha": sha or None,
        "dirty": bool(sha and _git(checkout, "status", "--porcelain")),
        "build_timestamp": when or None,
        "python_version": platform.python_version(),
        "torch_version": _version("torch"),
        "transformers_version": _version("transformers"),
        "features": [name for name, package in FEATURES if _version(package)],
    }


FEATURES = (("torch", "torch"), ("cuda", "cuda-python"), ("gguf", "gguf"))


def _is_checkout(directory: Path) -> bool:
    return (directory / ".git").exists() and (directory / "pyproject.toml").exists()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(directory: Path, *args: str) -> str | None:
    if not _is_checkout(directory):
        return None
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(directory), *args],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
