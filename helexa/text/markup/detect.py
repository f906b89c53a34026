"""Which markup a model writes, by its chat template and its tokens."""

from collections.abc import Callable

from helexa.text.markup.names import Markup, ToolFormat

# What a template says of calls, the most telling first.
SIGNS: tuple[tuple[ToolFormat, tuple[str, ...]], ...] = (
    ("kimi", ("<|tool_calls_section_begin|>",)),
    ("deepseek_v3", ("<｜tool▁calls▁begin｜>", "```json")),
    ("deepseek_v31", ("<｜tool▁calls▁begin｜>",)),
    ("glm", ("<arg_key>",)),
    ("qwen_xml", ("<function=", "<parameter=")),
    ("mistral", ("[TOOL_CALLS]",)),
    ("pythonic", ("<|python_start|>",)),
    ("pythonic", ("<|tool_call_start|>",)),
    ("pythonic", ("<|tool_list_start|>",)),
    ("pythonic", ("<function_calls>",)),
    ("pythonic", ("func_name1(",)),
    ("hermes", ("<tool_call>",)),
    ("llama_json", ("<|python_tag|>",)),
    ("llama_json", ('"parameters": dictionary of argument name',)),
)
THOUGHTS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("Here is my thought process:", "Here is my response:"),
)
# Markers around what is said, which are no text.
SILENT = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")


def detect(template_source: str, has_token: Callable[[str], bool]) -> Markup:
    """The markup of the model with this chat template; "" if it has none.

    A template that never mentions tools gets the generic preamble, which asks for hermes' form.
    `has_token` is only asked where the template leaves a question open.
    """
    if "<|channel|>" in template_source and "<|message|>" in template_source:
        return Markup("harmony")
    return Markup(
        detect_tools(template_source),
        detect_think(template_source, has_token),
        tuple(marker for marker in SILENT if marker in template_source),
    )


def detect_tools(source: str) -> ToolFormat:
    if "tools" not in source:
        return "hermes"
    return next((name for name, signs in SIGNS if all(sign in source for sign in signs)), "hermes")


def detect_think(source: str, has_token: Callable[[str], bool]) -> tuple[str, str] | None:
    for pair in THOUGHTS:
        if any(mark in source for mark in pair):
            return pair
    if not source:
        return None
    return next((pair for pair in THOUGHTS[:-1] if has_token(pair[0])), None)


def ends_of(markup: Markup) -> tuple[str, ...]:
    """Markers that end an answer, whether or not the model's files say so."""
    return ("<|return|>", "<|call|>") if markup.tools == "harmony" else ()
