"""One step of a model, planned on what is there: who begins, who gives way, what is computed."""

from collections.abc import Sequence as Some

from helexa.engine.draft import MOST_DRAFTED, worth
from helexa.engine.lives import Lives
from helexa.engine.pace import Pace
from helexa.engine.scheduler import Chunk, beginner, plan, prompt_budget


def plan_step(lives: Lives, pace: Pace, width: int, most_prompt_tokens: int) -> Some[Chunk]:
    """The chunks to compute; room is taken and given for them."""
    memory = lives.memory
    lives.mark_awaited()
    decoding = sum(each.decodes for each in lives.progress())
    draft(lives, decoding, pace.cost(decoding))
    progress = lives.progress()
    step_seconds = pace.step if decoding else None
    budget = prompt_budget(most_prompt_tokens, step_seconds, pace.token)
    while found := beginner(progress, width, memory.free, budget):
        lives.begin(*found)
        progress = lives.progress()
    planned = plan(progress, budget, memory.free)
    for uid in planned.preempted:
        lives.preempt(uid)
    for chunk in planned.chunks:
        memory.grow(chunk.uid, chunk.capacity)
    return planned.chunks


def draft(lives: Lives, decoding: int, cost: float | None) -> None:
    """Let sequences guess what comes next, as far as that saves those that decode more than it costs."""
    for sequence in lives.sequences.values():
        sequence.draft = []
        if sequence.drafter is not None and sequence.may_draft:
            guess, chance = sequence.drafter.guess()
            sequence.draft = guess[: worth(chance, cost, decoding, MOST_DRAFTED)]
