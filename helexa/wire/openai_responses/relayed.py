"""What another server has written of a stream, for whoever must end it in its place."""

from attrs import define, field

ID = b'"id":"'
NUMBER = b'"sequence_number":'
LONGEST_ID = 200


@define(eq=False)
class Told:
    """`number` pieces came so far."""

    number: int = field(default=0, init=False)
    _first: bytes = field(default=b"", init=False)
    _last: bytes = field(default=b"", init=False)

    def take(self, data: bytes) -> bytes:
        """One more, as it is."""
        self._first, self._last = self._first or data, data
        self.number += 1
        return data

    @property
    def response_id(self) -> str:
        """That of the response; "" if it is not told where it should be."""
        _, found, rest = self._first.replace(b'"id": "', ID).partition(ID)
        name = rest[:LONGEST_ID].partition(b'"')[0].decode("ascii", "replace")
        return name if found and name.replace("_", "").isalnum() else ""

    @property
    def next_number(self) -> int:
        """Of the next event."""
        _, _, rest = self._last.rpartition(NUMBER)
        digits = rest[:20].strip().partition(b",")[0].partition(b"}")[0]
        return int(digits) + 1 if digits.isdigit() else self.number
