"""What one value of the configuration must be: attrs validators that say what they expected."""

import re
from collections.abc import Callable
from typing import Any, NewType
from urllib.parse import urlsplit

from helexa.http.address import check_peers, split_address, split_authority

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,199}")
PRINCIPAL = re.compile(r"[!-~]{1,128}")
SECRET_HASH = re.compile(r"sha256:[0-9a-f]{64}")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+/?", re.IGNORECASE)
SOURCE_KINDS = ("hf:", "path:", "gguf:", "pypi:", "node:")

# Text that may hold line breaks and control characters, as no other text of a file may.
Prose = NewType("Prose", str)
# A point in time, in Unix seconds; a file has it as TOML's date or date and time, or as text.
Moment = NewType("Moment", float)


class Unfit(ValueError):
    """A value that cannot stand where it stands; `expected` says what could."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {value!r}")
        self.expected, self.value = expected, value


# A validator is called with the instance (unused), its attribute (unused) and the value.


def positive(_: object, __: object, value: float) -> None:
    if not value > 0:
        raise Unfit("a number above 0", value)


def not_negative(_: object, __: object, value: Any) -> None:
    if value is not None and not value >= 0:
        raise Unfit("0 or a number above it", value)


def between(low: float, high: float) -> Callable[[object, object, Any], None]:
    """A number from `low` to `high`, both included, or none at all."""

    def check(_: object, __: object, value: Any) -> None:
        if value is not None and not low <= value <= high:
            raise Unfit(f"a number from {low:g} to {high:g}", value)

    return check


def count_or_auto(_: object, __: object, value: int | str) -> None:
    if value != "auto" and (not isinstance(value, int) or value < 0):
        raise Unfit('a whole number from 0 on, or "auto"', value)


def listen(_: object, __: object, value: str) -> None:
    try:
        split_address(value)
    except ValueError:
        raise Unfit('"host:port" such as "127.0.0.1:31313" or "[::1]:31313"', value) from None


def path(_: object, __: object, value: str) -> None:
    """Relative paths would depend on where the process was started from."""
    if value and not value.startswith(("/", "~/")):
        raise Unfit('an absolute path ("/..." or "~/..."), or "" for the default', value)


def secret_file(_: object, __: object, value: str) -> None:
    if not value.startswith("credential:") or not NAME.fullmatch(value[len("credential:") :]):
        path(None, None, value)


def principal(_: object, __: object, value: str) -> None:
    """It stands in headers, labels and logs."""
    if not PRINCIPAL.fullmatch(value):
        raise Unfit("1 to 128 printable ASCII characters without spaces", value)


def optional_principal(_: object, __: object, value: str) -> None:
    if value:
        principal(None, None, value)


def secret_hash(_: object, __: object, value: str) -> None:
    if value and not SECRET_HASH.fullmatch(value):
        raise Unfit('"sha256:" and the 64 hexadecimal digits of a SHA-256', value)


def token(_: object, __: object, value: str) -> None:
    """It travels in an Authorization header."""
    if not all("!" <= character <= "~" for character in value):
        raise Unfit("printable ASCII characters without spaces", value)


def is_name(text: str) -> bool:
    return bool(NAME.fullmatch(text))


def name(_: object, __: object, value: str) -> None:
    if not is_name(value):
        raise Unfit("a name of letters, digits, dots, hyphens and underscores", value)


def url(_: object, __: object, value: str) -> None:
    """Without a name and password: those are what `token` is for."""
    if not is_url(value):
        raise Unfit('a URL such as "http://gpu.lan:13131"', value)


def urls(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        url(None, None, value)


def is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_reachable = parts.port != 0 and split_authority(parts.netloc) is not None
    except ValueError:
        return False
    is_plain = all("!" <= character <= "~" and character not in "@\\?#" for character in text)
    return is_plain and is_reachable and text.startswith(("http://", "https://"))


def names(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        name(None, None, value)


def hosts(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        if value != "*" and split_authority(value) is None:
            raise Unfit('host names or addresses such as "gpu.lan", or "*"', value)


def origins(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        if value != "*" and not ORIGIN.fullmatch(value):
            raise Unfit('origins such as "https://chat.lan:8080", or "*"', value)


def networks(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        if check_peers([value]):
            raise Unfit('addresses or networks such as "192.168.1.0/24"', value)


def source_patterns(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        if value != "*" and not value.startswith(SOURCE_KINDS):
            raise Unfit('patterns of sources such as "hf:*" or "hf:Qwen/*"', value)


def model_id(_: object, __: object, value: str) -> None:
    if not is_model_id(value):
        raise Unfit('a model id such as "qwen3-8b" or "Qwen/Qwen3-8B"', value)


def model_ids(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        model_id(None, None, value)


def is_model_id(text: str) -> bool:
    """Ids stand in URLs, labels and file names."""
    whole = bool(MODEL_ID.fullmatch(text)) and not text.endswith("/")
    return whole and ".." not in text and "//" not in text
