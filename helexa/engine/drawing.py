"""The tokens that a pass gives, drawn together: as many of each sequence as its draft was right for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from helexa.engine.lives import Lives
from helexa.engine.orders import Notice
from helexa.engine.runner import Outcomes
from helexa.engine.sampler import Drawn, Row, draw_all
from helexa.errors import HelexaError


def draw(outcomes: Outcomes, lives: Lives) -> Iterator[Notice]:
    """The next tokens of every sequence whose logits are there; what ends with them is gone.

    After an error of the device nothing has changed of those that were not told of.
    """
    rows: dict[int, list[Row]] = {}
    for uid, count in Counter(outcomes.uids).items():
        try:
            rows[uid] = lives.sequences[uid].rows(count)
        except HelexaError as error:
            yield lives.fail(uid, error)
    if outcomes.logits is None or not rows:
        return
    wanted = [place for place, uid in enumerate(outcomes.uids) if uid in rows]
    logits = outcomes.logits
    if len(wanted) < len(outcomes.uids):
        logits = logits[wanted]
    drawn = iter(draw_all(logits, [row for some in rows.values() for row in some]))
    for uid, some in rows.items():
        yield from take(uid, list(islice(drawn, len(some))), lives)


def take(uid: int, drawn: Sequence[Drawn | HelexaError], lives: Lives) -> Iterator[Notice]:
    """Let a sequence go on with what was drawn for it."""
    sequence = lives.sequences[uid]
    before, finish = sequence.computed, None
    try:
        for piece in sequence.go_on(drawn):
            yield piece
            finish = piece.finish
    except HelexaError as error:
        yield lives.fail(uid, error)
        return
    lives.settle_draft(uid, len(drawn) - 1, sequence.computed - before)
    if finish:
        lives.end(uid)
