"""A tokeniser as llguidance reads one."""

from helexa.text.constraint.closers import Closers
from helexa.text.tokenizer import Tokenizer

END = b"<|the end of the answer|>"
LEAD = (
    "\x02"  # some tokenisers put a space before a text: they are given something to put it before
)


class Tokens:
    """Every id's bytes, one more id for the end of the answer, and how text is cut into tokens."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = tokenizer.special_ids
        end = tokenizer.num_ids
        self.eos_token_id = end
        self.special_token_ids = [*sorted(special), end]
        self.tokens = [
            tokenizer.token(id).encode() if id in special else tokenizer.token_bytes(id)
            for id in range(end)
        ]
        self.tokens.append(END)
        self._tokenizer = tokenizer
        self._lead = tokenizer.encode(LEAD)
        self._ids = {t: id for id, t in enumerate(self.tokens[:end]) if t and id not in special}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: str | bytes) -> list[int]:
        """The tokens that the model would write `text` with; they spell it to the byte."""
        octets = text.encode() if isinstance(text, str) else bytes(text)
        ids = self._tokenizer.encode(LEAD + octets.decode("utf-8", "replace"))
        rest = list(ids[len(self._lead) :])
        usual = ids[: len(self._lead)] == self._lead and not self._tokenizer.special_ids & set(rest)
        if usual and b"".join(self.tokens[id] for id in rest) == octets:
            return rest
        return self._longest_first(octets)

    def closers(self) -> Closers:
        return Closers.of(self._ids)

    def _longest_first(self, octets: bytes) -> list[int]:
        ids = []
        while octets:
            sizes = range(min(self._longest, len(octets)), 0, -1)
            size = next((size for size in sizes if octets[:size] in self._ids), 0)
            if not size:
                break  # no token spells it: what was found is all that is certain
            ids.append(self._ids[octets[:size]])
            octets = octets[size:]
        return ids
