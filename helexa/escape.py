"""Making text from outside harmless where a person reads it."""

import re

# C0, DEL and C1 controls, line and paragraph separators, bidirectional marks and overrides, and
# lone surrogates, which no UTF-8 stream can carry.
UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escape(text: str) -> str:
    r"""`text` with every control character written out (`\n`, `\x1b`, `\u202e`)."""
    return UNSAFE.sub(lambda found: written(found[0]), text)


def written(character: str) -> str:
    code = ord(character)
    return SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
