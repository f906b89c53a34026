"""What comes out of a model's marked-up text, piece by piece."""

from attrs import frozen


@frozen
class Say:
    """More text for the client, exactly as the model wrote it.

    `begin` is where it stands in all that the model wrote, in characters.
    """

    text: str
    begin: int

    @property
    def end(self) -> int:
        return self.begin + len(self.text)


@frozen
class Think:
    """More of what the model thinks before it speaks."""

    text: str
    begin: int


@frozen
class Call:
    """The model begins to call a tool."""

    name: str


@frozen
class Arguments:
    """More of the arguments of the last call, as JSON text."""

    text: str


@frozen
class Ended:
    """The arguments of the last call are whole.  Missing where they are not."""


Output = Say | Think | Call | Arguments | Ended
