"""Script models that the tests of the SDKs and of recorded requests talk to, and what they are asked."""

from pathlib import Path
from typing import Any

THOUGHT, LOOK = "The user wants the weather.", "I look."
CITY = 'Zürich "west"'
SAID = "Hello there, friend."
SUNNY = "It is sunny."

# What is said depends on the last turn alone; the markup is Qwen3's.
RULES = r"""
[[rules]]
when = "sunny in"
say = "It is sunny."

[[rules]]
when = "think and call"
say = '''<think>
The user wants the weather.
</think>

I look.
<tool_call>
{"name": "get_weather", "arguments": {"city": "Zürich \"west\"", "days": [1, 2.5, null]}}
</tool_call>'''

[[rules]]
when = "both cities|USE_TOOL"
say = '''<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
<tool_call>
{"name": "get_weather", "arguments": {"city": "Rome"}}
</tool_call>'''

[[rules]]
when = "patch"
say = '''<tool_call>
{"name": "apply_patch", "arguments": {"input": "*** Begin Patch\n+hé\n"}}
</tool_call>'''

[[rules]]
when = "slowly"
say = "one two three four five six seven eight nine ten eleven twelve thirteen"
tokens_per_second = 10

[[rules]]
when = "break"
say = "This will not be heard to its end."
fail_after_tokens = 3

[[rules]]
say = "Hello there, friend."
"""

# A model that is slow to come up, read with the demo model's tokenizer.
LATE = """
load_seconds = 1

[[rules]]
say = "Here at last."
"""

CATALOGUE = """
[[models]]
id = "scripted"
aliases = ["fake-model"]
harness = "script"
script = "rules.toml"
tokenizer = "TOKENIZER"

[[models]]
id = "late"
harness = "script"
script = "late.toml"
"""

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def options(folder: Path, tokenizer: Path) -> dict[str, str]:
    """What a process needs to serve the models; their files are written into `folder`."""
    (folder / "models.toml").write_text(CATALOGUE.replace("TOKENIZER", str(tokenizer)))
    (folder / "rules.toml").write_text(RULES)
    (folder / "late.toml").write_text(LATE)
    return {"HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"), "CUDA_VISIBLE_DEVICES": ""}
