"""From what a client asked for to how tokens are drawn: request, catalogue, model, neutral."""

from typing import Any

from helexa.conversation import Sampling
from helexa.engine.orders import SamplingParams
from helexa.fleet.catalogue import SamplingDefaults


def settle(asked: Sampling, catalogue: SamplingDefaults, model: SamplingDefaults) -> SamplingParams:
    """Every parameter from the first that names it: the request, the catalogue, the model itself."""

    def first(name: str, neutral: Any) -> Any:
        values = (getattr(source, name) for source in (asked, catalogue, model))
        return next((value for value in values if value is not None), neutral)

    return SamplingParams(
        temperature=first("temperature", 1.0),
        top_p=first("top_p", 1.0),
        top_k=first("top_k", 0),
        min_p=first("min_p", 0.0),
        repetition_penalty=first("repetition_penalty", 1.0),
        frequency_penalty=first("frequency_penalty", 0.0),
        presence_penalty=first("presence_penalty", 0.0),
        logit_bias=asked.logit_bias,
        seed=asked.seed,
        top_logprobs=asked.top_logprobs,
    )


def model_defaults(generation_config: dict[str, Any]) -> SamplingDefaults:
    """What a model's `generation_config.json` recommends; nothing where it is silent or not sampling.

    Implausible values are dropped: the file comes from outside.
    """
    if generation_config.get("do_sample") is False:
        return SamplingDefaults()

    def number(name: str, low: float, high: float) -> float | None:
        value = generation_config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        return None

    top_k = number("top_k", 0, 1_000_000)
    return SamplingDefaults(
        temperature=number("temperature", 0, 2),
        top_p=number("top_p", 0.001, 1),
        top_k=None if top_k is None else int(top_k),
        min_p=number("min_p", 0, 1),
        repetition_penalty=number("repetition_penalty", 0.1, 10),
    )
