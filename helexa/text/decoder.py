"""What one token contributes to a text, in bytes: read from the `decoder` of a tokenizer.json.  Pure."""

import re
from types import MappingProxyType

from attrs import frozen

from helexa.conversation import Json
from helexa.errors import StoreError

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_letters() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable letter: itself, or one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + i): byte for i, byte in enumerate(others)}


LETTERS = MappingProxyType(byte_letters())


@frozen
class ByteLevel:
    """GPT-2's way: a letter per byte.  A token with any other letter stands for itself."""

    num_stripped: int = 0

    def bytes_of(self, token: str) -> bytes:
        try:
            return bytes(LETTERS[letter] for letter in token)
        except KeyError:
            return token.encode()


@frozen
class Pieces:
    """SentencePiece's way: text with a stand-in for the space, and `<0xE2>` for a lone byte.

    A text loses up to `num_stripped` spaces at its beginning.
    """

    replaced: tuple[tuple[str, str], ...] = ()
    has_bytes: bool = False
    prefix: str = ""
    num_stripped: int = 0

    def bytes_of(self, token: str) -> bytes:
        if self.has_bytes and (byte := BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for old, new in self.replaced:
            token = token.replace(old, new)
        return (self.prefix + token).encode()


Decoder = ByteLevel | Pieces


def read_decoder(decoder: Json) -> Decoder:
    """StoreError for one that no generative model is known to have."""
    if decoder is None:  # tokens are words
        return Pieces(prefix=" ", num_stripped=1)
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    by_type = {step["type"]: step for step in steps}
    if "ByteLevel" in by_type:
        return ByteLevel()
    unknown = set(by_type) - {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    if unknown:
        raise StoreError(f"The tokenizer's decoder {', '.join(sorted(unknown))} is not supported.")
    return Pieces(
        replaced=tuple(replacement(step) for step in steps if replaces(step)),
        has_bytes="ByteFallback" in by_type,
        num_stripped=sum(stripped(step) for step in steps),
    )


def replaces(step: Json) -> bool:
    return step["type"] in ("Replace", "Metaspace")


def replacement(step: Json) -> tuple[str, str]:
    if step["type"] == "Metaspace":
        return str(step["replacement"]), " "
    return str(step["pattern"]["String"]), str(step["content"])


def stripped(step: Json) -> int:
    match step["type"]:
        case "Strip":
            return int(step["start"])
        case "Metaspace":
            return 0 if step.get("prepend_scheme") == "never" else 1
        case _:
            return 0
