"""Log-probabilities of tokens, as OpenAI's chat and Responses tell them, in both directions."""

from collections.abc import Iterator

from helexa.conversation import Json, TokenLogprob
from helexa.wire.fields import Fields, as_integer
from helexa.wire.upstream import MOST

LEAST_LOGPROB = -9999.0  # for a probability of zero, as JSON knows no infinity


def write_scored(token: TokenLogprob) -> Json:
    """A token with its alternatives."""
    return write_logprob(token) | {"top_logprobs": [write_logprob(other) for other in token.top]}


def write_logprob(token: TokenLogprob) -> dict[str, Json]:
    return {
        "token": token.token,
        "bytes": list(token.bytes),
        "logprob": max(token.logprob, LEAST_LOGPROB),
    }


def read_logprobs(holder: Fields, key: str) -> Iterator[TokenLogprob]:
    """Of a list of tokens with their alternatives.  InvalidRequest for a wrong type."""
    for token in holder.objects(key, MOST) or ():
        top = [read_logprob(other) for other in token.objects("top_logprobs", MOST) or ()]
        yield read_logprob(token, tuple(top))


def read_logprob(token: Fields, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    text = token.required_text("token")
    values = token.array("bytes", MOST)
    octets = (
        text.encode()
        if values is None
        else bytes(as_integer(value, token.at("bytes"), 0, 255) for value in values)
    )
    return TokenLogprob(text, octets, token.number("logprob", -MOST, MOST) or 0.0, top)
