"""The public formats of tool calls and reasoning, by name."""

from typing import Literal

from attrs import frozen

ToolFormat = Literal[
    "hermes",  # JSON in <tool_call>: Hermes, Qwen 2.5 and 3; also bare JSON, and the generic preamble
    "qwen_xml",  # <function=...><parameter=...>: Qwen3-Coder
    "llama_json",  # Llama 3: {"name": ..., "parameters": ...}, perhaps after <|python_tag|>
    "pythonic",  # [name(argument=value), ...]: Llama 3.2 and 4
    "mistral",  # [TOOL_CALLS][{...}] and [TOOL_CALLS]name[ARGS]{...}
    "deepseek_v3",
    "deepseek_v31",
    "glm",  # <tool_call>name<arg_key>...</arg_key><arg_value>...</arg_value></tool_call>: GLM 4.x
    "harmony",  # channels: gpt-oss
    "kimi",  # Kimi K2
]


@frozen
class Markup:
    """`think` are the markers around reasoning, None for a model without; harmony has its own.

    `silent` are markers that stand around what is said and are no part of it.
    """

    tools: ToolFormat = "hermes"
    think: tuple[str, str] | None = None
    silent: tuple[str, ...] = ()
