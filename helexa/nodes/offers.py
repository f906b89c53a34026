"""What OpenAI-style servers tell of their models in /v1/models, each in fields of its own."""

from collections.abc import Iterator

from helexa.fleet.entry import ModelEntry
from helexa.fleet.limits import Limit
from helexa.fleet.view import ModelView
from helexa.nodes.told import Told, parse_object

MOST_TOKENS = 1 << 30
LEAST_CONTEXT = 16
USUAL_OUTPUT = 8192  # of a window whose server does not say how much of it an answer may take
# As vLLM and SGLang, LM Studio, llama-swap and OpenRouter, and LiteLLM call the window.
CONTEXTS = (
    "max_model_len",
    "loaded_context_length",
    "context_length",
    "context_window",
    "max_context_length",
    "max_input_tokens",
)
OUTPUTS = ("max_output_tokens", "max_completion_tokens")
BROKEN = ("failed", "error")  # as llama-server tells of a model that it could not start
SEES = ("vision", "image", "multimodal")


def read_offers(body: bytes) -> list[ModelView]:
    """Every model by its id, the first of each.  UpstreamMalformed where it is no such list."""
    found: dict[str, ModelView] = {}
    for told in parse_object(body).objects("data"):
        model = told.exact("id")
        if model:
            found.setdefault(model, ModelView(read_offer(model, told)))
    return list(found.values())


def read_offer(model: str, told: Told) -> ModelEntry:
    """Ready to be asked: what such a server lists it loads by itself."""
    is_broken = told.object("status").word("value", BROKEN)
    capabilities = {word.lower() for word in read_capabilities(told)}
    return ModelEntry(
        model,
        harness="openai",
        status="failed" if is_broken else "loaded",
        capabilities=("text", "vision") if capabilities.intersection(SEES) else ("text",),
        limit=read_limit(told),
        tool_call=told.flag("tool_call") or "tools" in capabilities,
        reasoning=told.flag("reasoning") or "reasoning" in capabilities,
        created=told.count("created"),
    )


def read_capabilities(told: Told) -> Iterator[str]:
    """Lists of words, wherever they stand; or an object of flags."""
    yield from told.texts("capabilities")
    yield from told.texts("supported_parameters")
    yield from told.object("architecture").texts("input_modalities")
    flags = told.object("capabilities")
    yield from (str(name) for name in flags.values if flags.flag(name))


def read_limit(told: Told) -> Limit | None:
    """helexa's own fields first, then those of others; None where nothing is told."""
    own, meta = told.object("limit"), told.object("meta")
    context = first(own, "context") or first(told, *CONTEXTS) or first(meta, "n_ctx", "n_ctx_train")
    if context < LEAST_CONTEXT:
        return None
    output = min(first(own, "output") or first(told, *OUTPUTS) or USUAL_OUTPUT, context // 4)
    return Limit(context, min(first(own, "input") or context, context - output), output)


def first(told: Told, *names: str) -> int:
    """The first that is told of these counts, else 0."""
    return next((count for name in names if (count := told.count(name, MOST_TOKENS))), 0)
