"""What the child of `trial` runs: compile grammars, and be the one that dies of them.

Reads one JSON object from stdin and writes a line of JSON for each grammar: why it was refused, or "".
Imports nothing of helexa, so that it starts fast.
"""

import json
import resource
import sys
import threading
from typing import Any

import llguidance

STACK_BYTES = 1 << 20  # a part of what the threads of the server have
MEMORY_BYTES = 2 << 30
NUM_BYTES = 256


class ByteTokens:
    """A vocabulary of single bytes and the special tokens of the real one, under their own ids."""

    bos_token_id = None

    def __init__(self, end: int, special: dict[int, str]) -> None:
        self.eos_token_id = end
        self.special_token_ids = [*special, end]
        self.tokens = [bytes([id]) if id < NUM_BYTES else b"" for id in range(end + 1)]
        for id, token in special.items():
            self.tokens[id] = token.encode()
        self.tokens[end] = b"<|the end of the answer|>"

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def try_all(order: dict[str, Any]) -> None:
    special = {int(id): token for id, token in order["special"].items()}
    wrapped = llguidance.TokenizerWrapper(ByteTokens(order["end"], special))
    tokens = llguidance.LLTokenizer(wrapped, eos_token=order["end"], slices=[])
    limits = llguidance.LLParserLimits(**order["limits"])
    for grammar in order["grammars"]:
        matcher = llguidance.LLMatcher(tokens, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()
        print(json.dumps(matcher.get_error() if matcher.is_error() else ""), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(STACK_BYTES)
    work = threading.Thread(target=try_all, args=(json.load(sys.stdin),))
    work.start()
    work.join()
