"""How an answer is drawn: the sampling fields of a request, in both directions."""

import re

from helexa.conversation import Json, Sampling
from helexa.wire.fields import Fields, as_integer, as_number, refuse

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_STOP_IDS = 64
MAX_BIASES = 1024
MAX_TOKEN_ID = 2**31 - 1
MAX_TOP_LOGPROBS = 20
LEAST_TOP_P = 1e-6
TOKEN_ID = re.compile(r"[0-9]{1,9}")


def read_sampling(body: Fields, top_logprobs: int | None) -> Sampling:
    """`top_logprobs` is read apart: chat and completions ask for it in different fields."""
    top_k = body.integer("top_k", -1, MAX_TOKEN_ID)
    return Sampling(
        temperature=body.number("temperature", 0, 2),
        top_p=read_top_p(body),
        top_k=0 if top_k == -1 else top_k,  # some clients write -1 for off
        min_p=body.number("min_p", 0, 1),
        repetition_penalty=body.number("repetition_penalty", 0, 10, above_low=True),
        frequency_penalty=body.number("frequency_penalty", -2, 2),
        presence_penalty=body.number("presence_penalty", -2, 2),
        logit_bias=read_logit_bias(body),
        seed=body.integer("seed", -(2**63), 2**63 - 1),
        stop=read_stop(body),
        stop_token_ids=read_stop_ids(body),
        ignore_eos=body.flag("ignore_eos") or False,
        top_logprobs=top_logprobs,
    )


def read_top_p(body: Fields) -> float | None:
    """OpenAI's range begins at 0, where the likeliest token alone is left."""
    top_p = body.number("top_p", 0, 1)
    return None if top_p is None else max(top_p, LEAST_TOP_P)


def read_logit_bias(body: Fields) -> tuple[tuple[int, float], ...]:
    found = body.object("logit_bias")
    if found is None:
        return ()
    if len(found.values) > MAX_BIASES:
        body.refuse("logit_bias", f"must have at most {MAX_BIASES} entries")
    biases = {}
    for token, bias in found.values.items():
        if not TOKEN_ID.fullmatch(token):
            body.refuse("logit_bias", 'must have token ids as keys, such as "50256"')
        biases[int(token)] = as_number(bias, found.at(token), -100, 100)
    return tuple(biases.items())


def read_stop(body: Fields) -> tuple[str, ...]:
    stop = body.get("stop")
    if isinstance(stop, str):
        return (check_stop(stop, body.at("stop")),)
    if not isinstance(stop, list | None):
        body.refuse("stop", "must be a string or a list of strings")
    return read_stops(body, "stop")


def read_stops(body: Fields, key: str) -> tuple[str, ...]:
    stops = body.array(key, MAX_STOPS) or []
    return tuple(check_stop(stop, f"{body.at(key)}[{i}]") for i, stop in enumerate(stops))


def check_stop(stop: Json, path: str) -> str:
    """An empty one would end every answer before it begins."""
    if not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
        refuse(path, f"must be a string of 1 to {MAX_STOP_CHARACTERS} characters")
    return stop


def read_stop_ids(body: Fields) -> tuple[int, ...]:
    ids = body.array("stop_token_ids", MAX_STOP_IDS) or []
    return tuple(
        as_integer(token, f"stop_token_ids[{i}]", 0, MAX_TOKEN_ID) for i, token in enumerate(ids)
    )


def read_top_logprobs(body: Fields) -> int | None:
    wanted, top = body.flag("logprobs"), body.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if wanted:
        return top or 0
    if top:
        body.refuse("top_logprobs", "needs `logprobs` to be true")
    return None


def write_sampling(sampling: Sampling) -> dict[str, Json]:
    """Only what the client asked for."""
    written: dict[str, Json] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "stop_token_ids": list(sampling.stop_token_ids) or None,
        "ignore_eos": sampling.ignore_eos or None,
        "logprobs": None if sampling.top_logprobs is None else True,
        "top_logprobs": sampling.top_logprobs,
    }
    return {key: value for key, value in written.items() if value is not None}
