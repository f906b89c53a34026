"""What a request asks for beside its items: form, reasoning, scores, what is kept and told."""

from attrs import evolve, frozen

from helexa.conversation import Format, Json, JsonObject, JsonSchema, Sampling, Thinking
from helexa.wire.fields import Fields
from helexa.wire.format import (
    one_format,
    read_others,
    read_schema,
    read_structured,
    write_format,
    write_schema,
)
from helexa.wire.places import Places
from helexa.wire.request import MAX_NAME_CHARACTERS
from helexa.wire.sampling import MAX_TOP_LOGPROBS, read_sampling, write_sampling
from helexa.wire.thinking import read_thinking, write_thinking

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
MAX_INCLUDES = 64
MAX_METADATA = 64


@frozen
class Shown:
    """How reasoning is told: as its own text or in the place of a summary, and once more for replay."""

    summary: bool = False
    encrypted: bool = False


def read_includes(body: Fields) -> frozenset[str]:
    """What is asked for but never there, such as the sources of a search, is not looked at."""
    return frozenset(body.texts("include", MAX_INCLUDES) or ())


# -- the form of the answer --------------------------------------------------------------------------


def read_text_format(body: Fields) -> tuple[Format | None, Places]:
    """`text.format`, or one of the names that other servers have for a pattern or a grammar."""
    return one_format(body, [*read_own_format(body), *read_structured(body), *read_others(body)])


def read_own_format(body: Fields) -> list[tuple[str, Format]]:
    text = body.object("text") or Fields({})
    form = text.object("format")
    if form is None:
        return []
    match form.text("type"):
        case None | "text":
            return []
        case "json_object":
            return [(form.path, JsonObject())]
        case "json_schema":
            inner = form.object("json_schema") or form
            return [(inner.at("schema"), read_schema(inner))]
        case _:
            form.refuse("type", "must be text, json_object or json_schema")


def write_text(form: Format | None) -> dict[str, Json]:
    match form:
        case JsonObject():
            return {"text": {"format": {"type": "json_object"}}}
        case JsonSchema():
            return {"text": {"format": {"type": "json_schema"} | write_schema(form)}}
        case _:
            return write_format(form)


# -- reasoning ---------------------------------------------------------------------------------------


def read_reasoning(body: Fields, includes: frozenset[str]) -> tuple[Thinking, Shown]:
    """A summary that is asked for asks for reasoning too."""
    thinking = read_thinking(body)
    wanted = body.object("reasoning") or Fields({})
    summary = wanted.text("summary") or wanted.text("generate_summary")
    if summary is not None and thinking.enabled is None:
        thinking = evolve(thinking, enabled=True, shown=True)
    return thinking, Shown(summary is not None, ENCRYPTED in includes)


def write_reasoning(thinking: Thinking, kwargs: tuple[tuple[str, Json], ...]) -> dict[str, Json]:
    written = write_thinking(thinking, kwargs)
    effort = written.pop("reasoning_effort", None)
    if effort is not None:
        written["reasoning"] = {"effort": effort, **written.get("reasoning", {})}
    return written


# -- how it is drawn ---------------------------------------------------------------------------------


def read_drawn(body: Fields, includes: frozenset[str]) -> Sampling:
    """The fields of chat completions, but for scores: they are asked for in `include`, or by number."""
    top = body.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    scored = LOGPROBS in includes or bool(top)
    return read_sampling(body, (top or 0) if scored else None)


def write_drawn(sampling: Sampling) -> dict[str, Json]:
    written = write_sampling(evolve(sampling, top_logprobs=None))
    if sampling.top_logprobs is not None:
        written |= {"top_logprobs": sampling.top_logprobs, "include": [LOGPROBS]}
    return written


# -- what is told again ------------------------------------------------------------------------------


def read_echo(body: Fields) -> dict[str, Json]:
    """The settings as the response object tells them; a default stands where nothing was said.

    The model's own defaults for sampling are not known here: OpenAI's stand in for them.
    """
    text, reasoning = body.object("text") or Fields({}), body.object("reasoning") or Fields({})
    text.text("verbosity")
    return {
        "instructions": body.get("instructions"),
        "previous_response_id": body.text("previous_response_id"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.integer("max_tool_calls", 0, 2**53),
        "tools": [echo_tool(tool) for tool in body.get("tools") or ()],
        "tool_choice": body.get("tool_choice") or "auto",
        "parallel_tool_calls": body.flag("parallel_tool_calls") is not False,
        "text": told(text.values) | {"format": echo_format(text.get("format"))},
        "reasoning": {"effort": None, "summary": None} | told(reasoning.values),
        "truncation": read_truncation(body),
        "temperature": default(body.get("temperature"), 1.0),
        "top_p": default(body.get("top_p"), 1.0),
        "presence_penalty": default(body.get("presence_penalty"), 0.0),
        "frequency_penalty": default(body.get("frequency_penalty"), 0.0),
        "top_logprobs": body.get("top_logprobs") or 0,
        "metadata": read_metadata(body),
        "service_tier": "default",
        "background": False,
        "user": body.text("user"),
        "safety_identifier": body.text("safety_identifier"),
        "prompt_cache_key": body.text("prompt_cache_key"),
    }


def default(value: Json, otherwise: Json) -> Json:
    return otherwise if value is None else value


def told(values: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in values.items() if value is not None}


def echo_tool(tool: dict[str, Json]) -> Json:
    """A function is told with all of its fields."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None} | tool


def echo_format(form: dict[str, Json] | None) -> Json:
    if form is None or form.get("type") != "json_schema":
        return form or {"type": "text"}
    return {"description": None, "strict": False} | form


def read_truncation(body: Fields) -> str:
    """What is too long is refused, never cut, whichever of the two is asked for."""
    truncation = body.text("truncation") or "disabled"
    if truncation not in ("auto", "disabled"):
        body.refuse("truncation", "must be auto or disabled")
    return truncation


def read_metadata(body: Fields) -> dict[str, Json]:
    metadata = body.object("metadata") or Fields({}, "metadata")
    if len(metadata.values) > MAX_METADATA:
        body.refuse("metadata", f"must have at most {MAX_METADATA} entries")
    if any(len(key) > MAX_NAME_CHARACTERS for key in metadata.values):
        body.refuse("metadata", f"must have keys of at most {MAX_NAME_CHARACTERS} characters")
    return {key: metadata.text(key) for key in metadata.values}
