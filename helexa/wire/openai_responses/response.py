"""The response object, and the whole answer."""

import orjson

from helexa.conversation import FinishReason, Json, Usage
from helexa.errors import HelexaError
from helexa.wire.answer import Answer
from helexa.wire.envelope import error_object, seconds_to_wait
from helexa.wire.exchange import Reply
from helexa.wire.openai_responses.asked import Asked
from helexa.wire.openai_responses.item import Status
from helexa.wire.openai_responses.output import Output, exhaust, fill
from helexa.wire.openai_responses.stored import Stored

TOLD_CODES = ("context_length_exceeded", "insufficient_quota", "rate_limit_exceeded")


def write_answer(asked: Asked, answer: Answer, reply: Reply) -> bytes:
    choice = answer.choices[0]
    output = Output(asked, reply.id(""))
    fill(output, choice)
    exhaust(output.end(status_of(choice.reason)))
    return orjson.dumps(complete(output, reply, choice.reason, choice.stop_sequence, answer.usage))


def status_of(reason: FinishReason) -> Status:
    return "incomplete" if reason == "length" else "completed"


def complete(
    output: Output, reply: Reply, reason: FinishReason, stop: str | None, usage: Usage
) -> dict[str, Json]:
    """The response object of an answer that has ended; it is kept if that was asked for."""
    response = write_response(output.asked, reply, status_of(reason), output.items)
    response["usage"] = write_usage(usage)
    if reason == "length":
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    if stop is not None:
        response["stop_reason"] = stop  # an extension: the stop string that ended the answer
    if output.asked.past is not None:
        output.asked.past.keep(store(output, reply, response))
    return response


def store(output: Output, reply: Reply, response: dict[str, Json]) -> Stored:
    return Stored(
        id=reply.id("resp_"),
        messages=output.messages(),
        input=orjson.dumps(name_items(output.asked.input, reply.id(""))),
        output=orjson.dumps(output.items),
        response=orjson.dumps(response),
        earlier=output.asked.earlier,
        compacts=output.asked.compacts,
    )


def name_items(items: tuple[Json, ...], tag: str) -> list[Json]:
    """Input items with an id each: that of the client, or one that holds the response's."""
    return [{**item, "id": item.get("id") or f"in_{tag}_{i}"} for i, item in enumerate(items)]


def write_response(
    asked: Asked, reply: Reply, status: str, output: list[Json], error: Json = None
) -> dict[str, Json]:
    """When it was completed is not known here: the writer of an answer has no clock."""
    return {
        "id": reply.id("resp_"),
        "object": "response",
        "created_at": reply.created,
        "completed_at": None,
        "status": status,
        "error": error,
        "incomplete_details": None,
        "model": reply.model,
        "output": output,
        "usage": None,
        "store": asked.past is not None,
        **asked.echo,
    }


def write_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def write_error(error: HelexaError, request_id: str) -> Json:
    """An error in a stream: Codex acts on its code, and finds in the message when to try again."""
    told = error_object(error, request_id)
    if error.code not in TOLD_CODES:
        told["code"] = "invalid_prompt" if error.status < 500 else error.code or "server_error"
    wait = seconds_to_wait(error)
    if error.code == "rate_limit_exceeded" and wait is not None:
        told["message"] += f" Please try again in {wait}s."
    return told


def write_count(tokens: int) -> bytes:
    return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})
