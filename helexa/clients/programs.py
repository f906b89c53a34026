"""Programs that speak OpenAI's chat API: Continue, aider, llm, Agent Zero, Open WebUI, LiteLLM."""

from helexa.clients.agents import SET_KEY
from helexa.clients.notation import json, shell, yaml
from helexa.clients.offer import KEY_VARIABLE, ClientConfig, File, Model, Offer
from helexa.conversation import Json


def continue_dev(offer: Offer) -> ClientConfig:
    config = {
        "name": "helexa",
        "version": "1.0.0",
        "schema": "v1",
        "models": [continue_model(offer, model) for model in chosen_first(offer)],
    }
    note = f"{SET_KEY} Continue reads it from ~/.continue/.env."
    return ClientConfig((File("~/.continue/config.yaml", yaml(config)),), (note,))


def continue_model(offer: Offer, model: Model) -> Json:
    return {
        "name": model.id,
        "provider": "openai",
        "model": model.id,
        "apiBase": offer.api,
        "apiKey": f"${{{{ secrets.{KEY_VARIABLE} }}}}",
        "roles": ["chat", "edit", "apply", "summarize"],
        "capabilities": ["tool_use"] if model.tools else [],
        "defaultCompletionOptions": {"contextLength": model.context, "maxTokens": model.output},
    }


def aider(offer: Offer) -> ClientConfig:
    metadata_path = "~/.aider.model.metadata.json"
    config = {
        "model": f"openai/{offer.model.id}",
        "weak-model": f"openai/{offer.small.id}",
        "openai-api-base": offer.api,
        "show-model-warnings": False,
        "check-update": False,
    }
    metadata = {f"openai/{model.id}": litellm_limits(model) for model in offer.models}
    files = (File("~/.aider.conf.yml", yaml(config)), File(metadata_path, json(metadata)))
    return ClientConfig(files, ("Set OPENAI_API_KEY to your key.",))


def litellm_limits(model: Model) -> dict[str, Json]:
    """As LiteLLM's tables of models have it: `max_tokens` is the output's."""
    return {
        "max_tokens": model.output,
        "max_input_tokens": model.input,
        "max_output_tokens": model.output,
        "input_cost_per_token": model.cost_input / 1e6,
        "output_cost_per_token": model.cost_output / 1e6,
        "litellm_provider": "openai",
        "mode": "chat",
        "supports_function_calling": model.tools,
        "supports_reasoning": model.reasoning,
    }


def llm(offer: Offer) -> ClientConfig:
    models = [
        {
            "model_id": f"helexa/{model.id}",
            "model_name": model.id,
            "api_base": offer.api,
            "api_key_name": "helexa",
            "supports_tools": model.tools,
            "supports_schema": True,
        }
        for model in chosen_first(offer)
    ]
    path = "~/.config/io.datasette.llm/extra-openai-models.yaml"
    notes = (
        "`llm keys set helexa` keeps your key; any word will do where the gateway asks for none.",
        f"Then: llm -m helexa/{offer.model.id} 'What is the capital of France?'",
        'The directory is what `dirname "$(llm logs path)"` prints.',
    )
    return ClientConfig((File(path, yaml(models)),), notes)


def agent_zero(offer: Offer) -> ClientConfig:
    """Its settings as environment: a container takes them with `--env-file`."""
    variables = {"API_KEY_OTHER": f"${{{KEY_VARIABLE}}}"}
    for role, model in (("chat", offer.model), ("util", offer.small)):
        variables |= {
            f"A0_SET_{role}_model_provider": "other",
            f"A0_SET_{role}_model_name": model.id,
            f"A0_SET_{role}_model_api_base": offer.api,
            f"A0_SET_{role}_model_ctx_length": str(model.input),
        }
    note = f"Put your key in the place of ${{{KEY_VARIABLE}}}; any word will do where none is asked for."
    return ClientConfig((File(".env", shell(variables)),), (note,))


def open_webui(offer: Offer) -> ClientConfig:
    variables = {
        "OPENAI_API_BASE_URL": offer.api,
        "OPENAI_API_KEY": f"${{{KEY_VARIABLE}}}",
        "ENABLE_OLLAMA_API": "false",
        "DEFAULT_MODELS": offer.model.id,
        "TASK_MODEL_EXTERNAL": offer.small.id,
    }
    notes = (
        f"Put your key in the place of ${{{KEY_VARIABLE}}}; any word will do where none is asked for.",
        "In a container, 127.0.0.1 is the container itself: give the address of this host.",
    )
    return ClientConfig((File(".env", shell(variables)),), notes)


def litellm(offer: Offer) -> ClientConfig:
    models = [
        {
            "model_name": model.id,
            "litellm_params": {
                "model": f"openai/{model.id}",
                "api_base": offer.api,
                "api_key": f"os.environ/{KEY_VARIABLE}",
            },
            "model_info": litellm_limits(model),
        }
        for model in chosen_first(offer)
    ]
    return ClientConfig((File("config.yaml", yaml({"model_list": models})),), (SET_KEY,))


def chosen_first(offer: Offer) -> list[Model]:
    return [offer.model, *(model for model in offer.models if model is not offer.model)]
