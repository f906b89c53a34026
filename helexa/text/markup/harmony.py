"""gpt-oss's channels: <|channel|>NAME to=RECIPIENT<|message|>...<|end|>, one after the other."""

from helexa.text.markup.json_text import JsonArguments
from helexa.text.markup.outputs import Say, Think
from helexa.text.markup.source import SPACE, Reading, Source
from helexa.text.markup.speech import Speech
from helexa.text.markup.thought import NEWLINES
from helexa.text.stops import Automaton

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
MARKERS = (START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN)
RECIPIENT = "to="
ENDS = Automaton((END, CALL, RETURN, START, CHANNEL))
MAX_HEADER = 1024  # characters
NOBODY = ("", "assistant", "user", "all")


def read_answer(source: Source, any_tools: bool, prompt: str) -> Reading[None]:
    """Messages up to the end.  `prompt` may end in the middle of one."""
    last = prompt.rfind(START)
    begun, message, body = (prompt[last:] if last >= 0 else "").partition(MESSAGE)
    speech = Speech(Say, continues=body != "")
    header = begun
    if not message:
        inside = CHANNEL in begun or RECIPIENT in begun
        header += yield from read_header(source, speech, inside=inside)
    while True:
        yield from read_message(source, header, any_tools, speech)
        if not (yield from source.peek()):
            return
        speech = Speech(Say, SPACE)
        header = yield from read_header(source, speech)


def read_header(source: Source, speech: Speech, *, inside: bool = False) -> Reading[str]:
    """What stands before a message; nothing where the model just speaks."""
    source.mark()
    if not inside and not (yield from source.starts(*MARKERS, RECIPIENT, " " + RECIPIENT)):
        source.forget()
        return ""
    taken = ""
    while len(taken) < MAX_HEADER and (yield from source.peek()):
        found = yield from source.starts(*MARKERS)
        if found in (END, CALL, RETURN):
            break
        taken += source.take(len(found) or 1)
        if found == MESSAGE:
            break
    begin = source.marked_at
    text = source.returned()
    if len(taken) >= MAX_HEADER:
        yield from speech.say(text, begin)
    return taken


def read_message(source: Source, header: str, any_tools: bool, speech: Speech) -> Reading[None]:
    name = recipient_of(header)
    if name and any_tools:
        yield from source.call(name)
        arguments = JsonArguments()
        mark = yield from source.until(ENDS, arguments.tell)
        yield from arguments.finish(cut=not mark and source.cut)
    else:
        source.thinking = after(header, CHANNEL) == "analysis"
        if source.thinking:
            speech = Speech(Think, NEWLINES)
        mark = yield from source.until(ENDS, speech.say)
        if not mark or not source.thinking:
            yield from speech.finish()
        source.thinking = source.thinking and not mark
    if mark in (START, CHANNEL):
        source.back(len(mark))


def recipient_of(header: str) -> str:
    """The tool that a message is for, "" for none."""
    recipient = after(header, RECIPIENT)
    return "" if recipient in NOBODY else recipient.removeprefix("functions.")


def after(header: str, mark: str) -> str:
    """The word after the last `mark`."""
    _, found, rest = header.rpartition(mark)
    words = rest.partition("<")[0].split() if found else []
    return words[0] if words else ""
