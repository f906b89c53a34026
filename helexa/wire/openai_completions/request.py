"""A completions request: texts to go on with, each a string or the ids of its tokens."""

from attrs import evolve, field, frozen

from helexa.conversation import Conversation, Json, Sampling
from helexa.wire.answer import Answer
from helexa.wire.exchange import Reply
from helexa.wire.fields import Fields, as_integer, refuse
from helexa.wire.format import read_format
from helexa.wire.openai_chat.request import MAX_CHOICES, read_include_usage, read_max_tokens
from helexa.wire.openai_completions.echo import Echo
from helexa.wire.openai_completions.writer import StreamWriter, write_answer
from helexa.wire.places import Places
from helexa.wire.request import MAX_TOKENS, check_labels, read_model
from helexa.wire.sampling import MAX_TOKEN_ID, MAX_TOP_LOGPROBS, read_sampling

MAX_PROMPTS = 64
MAX_PROMPT_IDS = 2**20
DEFAULT_MAX_TOKENS = 16

Prompt = str | tuple[int, ...]


@frozen
class CompletionRequest:
    """`echo` tells whether an answer begins with the text that it goes on with."""

    conversation: Conversation
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    places: Places = field(factory=dict, eq=False)

    @property
    def passes(self) -> bool:
        return True

    def whole(self, answer: Answer, reply: Reply) -> bytes:
        return write_answer(answer, reply, self._echo)

    def writer(self, reply: Reply) -> StreamWriter:
        return StreamWriter(reply, self._echo, self.include_usage)

    @property
    def _echo(self) -> Echo:
        asked = self.conversation
        return Echo(
            asked.texts if self.echo else (), asked.n, asked.sampling.top_logprobs is not None
        )


def read_request(body: Json) -> CompletionRequest:
    """The request in a parsed body (`helexa.wire.fields.parse_json`).  InvalidRequest names the field."""
    fields = Fields(body)
    model, texts = read_model(fields), read_prompts(fields)
    refuse_what_cannot_be_done(fields)
    check_labels(fields)
    echo = fields.flag("echo") or False
    top_logprobs = fields.integer("logprobs", 0, MAX_TOP_LOGPROBS)
    wanted, places = read_format(fields)
    conversation = Conversation(
        model=model,
        texts=texts,
        format=wanted,
        sampling=read_sampling(fields, top_logprobs),
        max_tokens=read_max_tokens(fields) or DEFAULT_MAX_TOKENS,
        n=read_n(fields),
        prompt_logprobs=read_prompt_logprobs(texts, echo, top_logprobs),
    )
    conversation = evolve(conversation, sampling=for_scoring(conversation))
    return CompletionRequest(
        conversation,
        stream=fields.flag("stream") or False,
        include_usage=read_include_usage(fields),
        echo=echo,
        places=places,
    )


def for_scoring(asked: Conversation) -> Sampling:
    """Who asks for a text's scores and one token takes the last score for that token's (lm-eval does):
    it must be there, also when it is the end."""
    scored = asked.prompt_logprobs is not None and asked.sampling.top_logprobs is not None
    goes_on = scored and asked.max_tokens == 1
    return evolve(asked.sampling, ignore_eos=asked.sampling.ignore_eos or goes_on)


def refuse_what_cannot_be_done(fields: Fields) -> None:
    if fields.text("suffix"):
        fields.refuse("suffix", "is not supported: text is only ever added at the end")


def read_n(fields: Fields) -> int:
    n = fields.integer("n", 1, MAX_CHOICES) or 1
    best_of = fields.integer("best_of", 1, MAX_TOKENS)
    if best_of not in (None, n):
        fields.refuse("best_of", "must be equal to `n`: every answer is returned")
    return n


def read_prompt_logprobs(
    texts: tuple[Prompt, ...], echo: bool, top_logprobs: int | None
) -> int | None:
    """An echo of token ids needs their text, which comes with their scores."""
    if not echo:
        return None
    if top_logprobs is None and not all(isinstance(text, str) for text in texts):
        return 0
    return top_logprobs


# -- prompts -------------------------------------------------------------------------------------------


def read_prompts(fields: Fields) -> tuple[Prompt, ...]:
    """A string, a list of strings, a list of token ids, or a list of such lists."""
    prompt = fields.get("prompt")
    match prompt:
        case str():
            return (read_prompt(prompt, "prompt"),)
        case [int() | float(), *_]:
            return (read_ids(prompt, "prompt"),)
        case [_, *_]:
            prompts = fields.array("prompt", MAX_PROMPTS) or []
            return tuple(read_prompt(each, f"prompt[{i}]") for i, each in enumerate(prompts))
        case _:
            fields.refuse("prompt", "is required: a string, token ids, or a list of either")


def read_prompt(prompt: Json, path: str) -> Prompt:
    """Nothing can be gone on with only as what a model takes for the beginning, which not all have."""
    if isinstance(prompt, list):
        return read_ids(prompt, path)
    if not isinstance(prompt, str):
        refuse(path, "must be a string or a list of token ids")
    if not prompt:
        refuse(
            path, "must not be empty: to begin with nothing, send the id of the model's first token"
        )
    return prompt


def read_ids(ids: list[Json], path: str) -> tuple[int, ...]:
    if not 1 <= len(ids) <= MAX_PROMPT_IDS:
        refuse(path, f"must have 1 to {MAX_PROMPT_IDS} token ids, not {len(ids)}")
    if all(type(token) is int and 0 <= token <= MAX_TOKEN_ID for token in ids):
        return tuple(ids)
    return tuple(as_integer(token, f"{path}[{i}]", 0, MAX_TOKEN_ID) for i, token in enumerate(ids))
