"""Context limits: how long a prompt and an answer may be, as plain arithmetic."""

from attrs import frozen

OUTPUT_RESERVE_TOKENS = 8192


@frozen
class Limit:
    """Tokens.  `context` = `input` + `output`; a prompt of `input` tokens is never refused for length."""

    context: int
    input: int
    output: int


def architecture_limit(
    max_position_embeddings: int,
    *,
    max_context: int = 0,
    output_reserve: int = 0,
    max_prompt_tokens: int = 0,
) -> Limit:
    """The limit that the architecture sets, less a reserve for the answer.

    The reserve is `output_reserve`, else min(8192, a quarter of the window).  `max_context` and
    `max_prompt_tokens` bound window and prompt; 0 means unset.
    """
    context = max_position_embeddings
    if max_context:
        context = min(context, max_context)
    reserve = output_reserve or min(OUTPUT_RESERVE_TOKENS, context // 4)
    reserve = min(reserve, context - 1)
    prompt = context - reserve
    if max_prompt_tokens:
        prompt = min(prompt, max_prompt_tokens)
    return Limit(prompt + reserve, prompt, reserve)


def clamp_output(asked: int | None, prompt_tokens: int, limit: Limit) -> int:
    """How many tokens may be generated after a prompt of `prompt_tokens`, at least 1.

    A request that does not say gets the advertised output; one that asks for more than the window
    has left gets what is left.
    """
    left = limit.context - prompt_tokens
    return max(1, min(asked if asked is not None else limit.output, left))
