"""How much of an upstream's word about its own usage is believed."""

from helexa.conversation import Usage
from helexa.nodes.asked import Prepared

TEMPLATE_TOKENS = 16_384  # what a template and its tools may add to a prompt, generously


def believed(told: Usage | None, prepared: Prepared, counted: int) -> Usage:
    """What was told as far as it can be true, our own count in place of the rest.

    `counted` is about how many tokens of the answer came by here.
    """
    if told is None:
        return Usage(prepared.num_tokens, counted)
    prompt = told.prompt_tokens
    if not 0 < prompt <= most_prompt(prepared):
        prompt = prepared.num_tokens
    completion = told.completion_tokens
    most = most_completion(prepared)
    if (completion == 0 and counted) or (most is not None and completion > most):
        completion = counted if most is None else min(counted, most)
    return Usage(
        prompt,
        completion,
        min(told.cached_tokens, prompt),
        min(told.reasoning_tokens, completion),
    )


def most_prompt(prepared: Prepared) -> int:
    """A token is a byte of the body at least, but for what the template adds."""
    return max(prepared.asked.body_bytes, prepared.num_tokens) + TEMPLATE_TOKENS


def most_completion(prepared: Prepared) -> int | None:
    asked = prepared.asked.conversation
    limits = [most for most in (asked.max_tokens, prepared.max_tokens) if most is not None]
    return min(limits) * asked.num_answers if limits else None
