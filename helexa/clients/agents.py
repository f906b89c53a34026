"""Coding agents: opencode, Claude Code, Codex, and the editor Zed."""

from helexa.clients.notation import json, toml
from helexa.clients.offer import KEY_VARIABLE, ClientConfig, File, Model, Offer
from helexa.conversation import Json

SET_KEY = f"Set {KEY_VARIABLE} to your key; any word will do where the gateway asks for none."
# Tokens of an agent's own prompt and tools, a little more than was measured; they grow with versions.
CLAUDE_CODE_PROMPT = 14_000
OPENCODE_PROMPT = 8_000
CODEX_PROMPT = 6_000
OPENCODE_RESERVE = 20_000  # at most, of a prompt's tokens, so that there is room to compact
CODEX_MODELS = "helexa-models.json"


def opencode(offer: Offer) -> ClientConfig:
    """Both the form of version 1 (`provider`) and the one of version 2 (`providers`)."""
    key = f"{{env:{KEY_VARIABLE}}}"
    config: dict[str, Json] = {
        "$schema": "https://opencode.ai/config.json",
        "model": f"helexa/{offer.model.id}",
        "small_model": f"helexa/{offer.small.id}",
        "provider": {
            "helexa": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "helexa",
                "options": {"baseURL": offer.api, "apiKey": key},
                "models": {model.id: opencode_model(model) for model in offer.models},
            }
        },
        "providers": {
            "helexa": {
                "package": "@opencode/ai/providers/openai-compatible",
                "settings": {"baseURL": offer.api, "apiKey": key},
                "models": {model.id: opencode_model_2(model) for model in offer.models},
            }
        },
    }
    notes = [SET_KEY, *warn_of_little_room(offer.model, "opencode", OPENCODE_PROMPT)]
    if offer.model.input - min(OPENCODE_RESERVE, offer.model.output) < OPENCODE_PROMPT:
        config["compaction"] = {"auto": False}  # else it compacts for ever, and never answers
    return ClientConfig((File("~/.config/opencode/opencode.json", json(config)),), tuple(notes))


def warn_of_little_room(model: Model, agent: str, prompt_tokens: int) -> list[str]:
    if model.input >= 2 * prompt_tokens:
        return []
    return [
        f"{model.id} reads {model.input} tokens: the prompt and the tools of {agent} take about "
        f"{prompt_tokens} of them, so that little is left."
    ]


def opencode_model(model: Model) -> Json:
    written: dict[str, Json] = {
        "name": model.id,
        "tool_call": model.tools,
        "reasoning": model.reasoning,
        "limit": opencode_limit(model),
        "cost": {"input": model.cost_input, "output": model.cost_output},
    }
    if model.reasoning:  # what it thought must come back with the next turn
        written["interleaved"] = {"field": "reasoning_content"}
    return written


def opencode_model_2(model: Model) -> Json:
    return {
        "limit": opencode_limit(model),
        "capabilities": {"tools": model.tools, "input": ["text"], "output": ["text"]},
    }


def opencode_limit(model: Model) -> Json:
    """Without `input` and `output` it would compact at every step, or never."""
    return {"context": model.context, "input": model.input, "output": model.output}


def claude_code(offer: Offer) -> ClientConfig:
    big, small = offer.model, offer.small
    variables = {
        "ANTHROPIC_BASE_URL": offer.url,
        "ANTHROPIC_MODEL": big.id,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": big.id,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": big.id,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": small.id,
        "CLAUDE_CODE_SUBAGENT_MODEL": big.id,
        # Of a model that it does not know it believes that it has 200 000 tokens.
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(big.context),
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(big.input),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(big.output),
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    helper = f'printf %s "${{{KEY_VARIABLE}:-none}}"'
    config = {"env": variables, "apiKeyHelper": helper}
    notes = [SET_KEY, *warn_of_little_room(big, "Claude Code", CLAUDE_CODE_PROMPT)]
    return ClientConfig((File("~/.claude/settings.json", json(config)),), tuple(notes))


def codex(offer: Offer) -> ClientConfig:
    """It speaks the Responses API alone.

    From a provider that is not OpenAI it fetches no list of models, and one that it does not know gets
    a long prompt made for another model and no `apply_patch`: so the list goes into a file of its own.
    """
    models = [model.codex for model in offer.models if model.codex is not None]
    config: dict[str, Json] = {
        "model": offer.model.id,
        "model_provider": "helexa",
        "model_catalog_json": CODEX_MODELS,  # beside this file
        "model_context_window": offer.model.context,
        "model_auto_compact_token_limit": offer.model.input * 9 // 10,
        "model_providers": {
            "helexa": {
                "name": "helexa",
                "base_url": offer.api,
                "env_key": KEY_VARIABLE,
                "wire_api": "responses",
                "supports_websockets": False,
            }
        },
    }
    files = (
        File("~/.codex/config.toml", toml(config)),
        File(f"~/.codex/{CODEX_MODELS}", json({"models": models})),
    )
    notes = [SET_KEY, *warn_of_little_room(offer.model, "Codex", CODEX_PROMPT)]
    notes.append("Make both files again when the models have changed.")
    return ClientConfig(files, tuple(notes))


def zed(offer: Offer) -> ClientConfig:
    provider = {
        "api_url": offer.api,
        "available_models": [zed_model(model) for model in offer.models],
    }
    config = {
        "language_models": {"openai_compatible": {"helexa": provider}},
        "agent": {"default_model": {"provider": "helexa", "model": offer.model.id}},
    }
    note = f"{SET_KEY} Zed reads it from the environment, or asks for it in its settings."
    return ClientConfig((File("~/.config/zed/settings.json", json(config)),), (note,))


def zed_model(model: Model) -> Json:
    return {
        "name": model.id,
        "display_name": model.id,
        "max_tokens": model.context,
        "max_output_tokens": model.output,
        "max_completion_tokens": model.output,
        "capabilities": {
            "tools": model.tools,
            "images": False,
            "parallel_tool_calls": True,
            "prompt_cache_key": False,
            "chat_completions": True,
            "interleaved_reasoning": model.reasoning,
        },
    }
