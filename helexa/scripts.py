"""What a host knows of a script model: its rules, and the tokenizer and template of a real one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from attrs import evolve

from helexa.config.script import read_rules
from helexa.conversation import Conversation
from helexa.engine.orders import Script, ScriptLoad
from helexa.errors import ConfigError, StoreError
from helexa.fleet.known import Known, Size
from helexa.fleet.script import SMALLEST_MB, Rule, Rules, choose, last_turn
from helexa.prompters import Files, LatePrompter
from helexa.text.prompt import Prompt
from helexa.text.prompter import Prompter

WEIGHTLESS = Size(0, 0, 0)

Finish = Callable[[Conversation, tuple[Prompt, ...]], tuple[Prompt, ...]]


def tokenizer_in(directory: str) -> Files:
    """A directory with a tokenizer, and when that was last changed.  StoreError."""
    path = Path(directory)
    try:
        return path, (path / "tokenizer.json").stat().st_mtime
    except OSError as error:
        raise StoreError(f"The tokenizer in {path} cannot be read: {error.strerror}.") from None


def scripted(known: Known, prompter: LatePrompter) -> Known:
    """A script model that reads as `known` does and says what its rules tell it.  StoreError.

    The rules are read now: a model that is loaded keeps those that it was loaded with.
    """
    if not known.stop_ids:
        raise StoreError(f"The tokenizer of {known.id} names no token that ends an answer.")
    try:
        rules = read_rules(Path(known.entry.script))
    except ConfigError as error:
        raise StoreError(f"The rules of {known.id} have a mistake: {error.mistakes[0]}") from None
    megabytes = max(SMALLEST_MB, known.entry.vram_mb)
    return evolve(
        known,
        finish=partial(with_scripts, known.finish, prompter, rules),
        script=ScriptLoad(rules.longest_load_seconds, megabytes << 20),
    )


def with_scripts(
    finish: Finish,
    prompter: LatePrompter,
    rules: Rules,
    conversation: Conversation,
    prompts: tuple[Prompt, ...],
) -> tuple[Prompt, ...]:
    """The prompts of a conversation, each with what the model will say to it.

    They are bound to forms as any model's are, so that what cannot be asked for is refused; no more
    comes of that.
    """
    made, turn = finish(conversation, prompts), last_turn(conversation)
    said = [one.text if conversation.texts else turn for one in made]
    return tuple(
        evolve(one, script=script_of(choose(rules, text), prompter.get()))
        for one, text in zip(made, said, strict=True)
    )


def script_of(rule: Rule, prompter: Prompter) -> Script:
    """The rule's answer in tokens: special tokens that are written in it are those tokens."""
    ids = prompter.tokenizer.encode(rule.say)
    end = end_of(prompter)
    return Script((*ids, end), rule.tokens_per_second, rule.fail_after_tokens)


def end_of(prompter: Prompter) -> int:
    """The token that ends an answer: the tokenizer's own, else one that the model's files name."""
    token = prompter.format.special_tokens.get("eos_token")
    id = None if token is None else prompter.tokenizer.token_id(token)
    return min(prompter.format.stop_ids) if id is None else id
