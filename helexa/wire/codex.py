"""A model as Codex wants it told: one entry of the `models` list beside OpenAI's `data`.

Codex takes its first message to the model from here.  Without one a model would not know that it is
an agent, nor how its patches are written.  Codex refuses the whole list if one entry lacks a field.
"""

from helexa.conversation import Json
from helexa.fleet.entry import ModelEntry
from helexa.fleet.limits import Limit

OUTPUT_OF_A_TOOL = 10_000  # tokens at most
EFFORTS = {
    "none": "Answers at once",
    "low": "Thinks a little",
    "medium": "Thinks as much as most tasks need",
    "high": "Thinks long",
}
INSTRUCTIONS = """\
You are a coding agent. You run in Codex, a program in the user's terminal, and you work on the user's \
files through the tools that it offers.

How you work:
- Do what the user asks, all of it and nothing beside it. Find out by yourself what you can; ask only \
for what you cannot find.
- Look before you change something: list and read the files that matter with shell commands such as \
rg, ls and sed. Never guess what a file holds.
- Obey the AGENTS.md files. One holds for the directory it is in and for all below; of two the deeper \
one wins, and the user wins over both.
- Change files with apply_patch. A patch has this form, where a line that stays begins with a space:
*** Begin Patch
*** Update File: path/of/file.py
@@ def function():
 a line that stays
-a line that goes
+a line that comes
*** Add File: path/of/new.py
+its first line
*** Delete File: path/of/old.py
*** End Patch
- Write as the code around yours is written, and change no more than the task needs. Commit, push and \
delete only when asked to.
- Run the tests or the build nearest to your change. If a command is not allowed, say which, and why \
you need it.
- Before a longer piece of work say in one sentence what you are about to do.
- End with what you changed and where, what you checked, and what you could not check: briefly, without \
repeating the code.
"""


def write_codex_model(name: str, entry: ModelEntry, priority: int) -> Json:
    """One entry; of two models the one with the lower `priority` stands first in Codex's picker."""
    limits = {} if entry.limit is None else write_window(entry.limit)
    most = OUTPUT_OF_A_TOOL if entry.limit is None else output_of_a_tool(entry.limit)
    return {
        "slug": name,
        "display_name": name,
        "description": None,
        "default_reasoning_level": "medium" if entry.reasoning else None,
        "supported_reasoning_levels": write_efforts() if entry.reasoning else [],
        "supports_reasoning_summaries": entry.reasoning,
        "shell_type": "shell_command",
        "apply_patch_tool_type": "freeform",
        "visibility": "list",
        "supported_in_api": True,
        "priority": priority,
        "upgrade": None,
        "base_instructions": INSTRUCTIONS,
        "support_verbosity": False,
        "default_verbosity": None,
        "truncation_policy": {"mode": "tokens", "limit": most},
        "supports_parallel_tool_calls": entry.tool_call,
        "experimental_supported_tools": [],
        "input_modalities": ["text", "image"] if "vision" in entry.capabilities else ["text"],
        **limits,
    }


def write_efforts() -> list[Json]:
    return [{"effort": effort, "description": text} for effort, text in EFFORTS.items()]


def write_window(limit: Limit) -> dict[str, Json]:
    """Codex compacts at nine tenths of the window unless told; prompts are refused above `input`."""
    return {
        "context_window": limit.context,
        "auto_compact_token_limit": limit.input * 9 // 10,
    }


def output_of_a_tool(limit: Limit) -> int:
    """A single output shall not fill a small window."""
    return max(1, min(OUTPUT_OF_A_TOOL, limit.input // 4))
