"""What whole answers and chunks of a stream write alike: a choice, its end, scores, the usage."""

from helexa.conversation import FinishReason, Json, TokenLogprob, Usage
from helexa.wire.answer import Choice
from helexa.wire.logprobs import write_scored
from helexa.wire.openai_chat.calls import write_calls


def write_choice(index: int, choice: Choice, legacy_calls: bool) -> Json:
    """`content` is null where the answer is tool calls and not a word."""
    message: dict[str, Json] = {
        "role": "assistant",
        "content": choice.text or (None if choice.calls else ""),
    }
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    return {
        "index": index,
        "message": message | write_calls(choice.calls, legacy=legacy_calls),
        "logprobs": write_logprobs(choice.logprobs),
        **write_reason(choice.reason, choice.stop_sequence, legacy_calls),
    }


def write_reason(
    reason: FinishReason, stop_sequence: str | None, legacy_calls: bool = False
) -> dict[str, Json]:
    """`stop_reason` is an extension: the stop string that ended the answer."""
    stop = {} if stop_sequence is None else {"stop_reason": stop_sequence}
    told = "function_call" if legacy_calls and reason == "tool_calls" else reason
    return {"finish_reason": told, **stop}


def write_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def write_logprobs(logprobs: tuple[TokenLogprob, ...]) -> Json:
    if not logprobs:
        return None
    return {"content": [write_scored(token) for token in logprobs]}
