"""What script models say to coding agents: calls of the agents' own tools, in the model's markup."""

import json
import random
from pathlib import Path

from coding_agents import AGENTS

# What stands in files that only tools can read.
SECRET, ONE, TWO = "marmalade-42", "apricot-11", "quince-22"
SUMMARY = "SUMMARY: somebody wants to know a word."
PATCHED = "made-by-a-patch"
PATCH = f"*** Begin Patch\n*** Add File: patched.txt\n+{PATCHED}\n*** End Patch\n"
LOAD_SECONDS = 3  # of a slow model


def furnish(work: Path) -> None:
    """The files that the agents are told to read; `long.txt` has some 20 000 tokens."""
    (work / "word.txt").write_text(f"The word is {SECRET}.\n")
    (work / "one.txt").write_text(f"{ONE}\n")
    (work / "two.txt").write_text(f"{TWO}\n")
    noise = random.Random(0)
    lines = (" ".join(f"{noise.getrandbits(24):06x}" for _ in range(8)) for _ in range(600))
    (work / "long.txt").write_text("\n".join(lines))


def rule(when: str, say: str, **more: float) -> str:
    """One `[[rules]]` table: a JSON string is one of TOML, too."""
    lines = [f"when = {json.dumps(when)}", f"say = {json.dumps(say)}"]
    lines += [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(["[[rules]]", *lines, ""])


def call(wanted: object) -> str:
    return f"<tool_call>{json.dumps(wanted)}</tool_call>"


def rules(work: Path) -> str:
    """For every agent: read one file, two at once, and one that is too long; then tell what was read."""
    made = [
        rule("Here is the conversation so far|CONTEXT CHECKPOINT COMPACTION", SUMMARY),
        rule("conversation was compacted|Another language model started", "I go on."),
        rule(SECRET, f"<think>The tool has told it.</think>The word in the file is {SECRET}."),
        rule(f"(?s){ONE}.*{TWO}|{TWO}.*{ONE}", f"<think>So.</think>{ONE} and {TWO}, I read."),
        rule("patched.txt", "<think>It is done.</think>The patch is applied."),
    ]
    for agent in AGENTS:
        word, one, two, long = (
            call(agent.reads(work / f"{name}.txt")) for name in ("word", "one", "two", "long")
        )
        made += [
            rule(f"WORD by {agent}", f"<think>A file must be read.</think>I look.{word}"),
            rule(f"BOTH by {agent}", f"<think>Two files, then.</think>I read both.{one}{two}"),
            rule(f"LONG by {agent}", f"I look.{long}"),
        ]
    patch = call({"name": "apply_patch", "arguments": {"input": PATCH}})
    made.append(rule("PATCH", f"<think>A patch must be written.</think>I write it.{patch}"))
    made.append(rule("ENDLESS", "word " * 2000, tokens_per_second=20))
    made.append('[[rules]]\nsay = "I have nothing to say to that."\n')
    return "\n".join(made)


def breaking_rules() -> str:
    """Every answer breaks off in the middle."""
    return rule("", "This is not heard to its end, whatever happens.", fail_after_tokens=5)


def catalogue(tokenizer: Path, **models: str) -> str:
    """Script models, each with rules in the file of its name, and what else stands in its entry."""
    entry = (
        '[[models]]\nid = "{0}"\nharness = "script"\nscript = "{0}.rules"\ntokenizer = "{1}"\n{2}\n'
    )
    return "\n".join(entry.format(id, tokenizer, more) for id, more in models.items())
