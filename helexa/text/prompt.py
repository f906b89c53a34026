"""What a model is asked to go on with."""

from attrs import field, frozen

from helexa.engine.orders import Constraint, Script


@frozen
class Prompt:
    """`continues`: the prompt ends inside an assistant's message, which the answer goes on with.
    `constraint` is the form that the answer must have, None if it is free; `script` is the answer of
    a script model, which is known before it is given.

    What was said does not show in a log that shows the value.
    """

    ids: tuple[int, ...] = field(repr=False)
    text: str = field(repr=False)
    continues: bool = False
    constraint: Constraint | None = field(default=None, repr=False)
    script: Script | None = field(default=None, repr=False)
