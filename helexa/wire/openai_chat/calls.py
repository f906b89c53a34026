"""Tool calls as an answer has them: a list, or the one `function_call` of the form before tools."""

from helexa.conversation import Json, ToolCall, ToolCallStarted


def write_calls(calls: tuple[ToolCall, ...], *, legacy: bool) -> dict[str, Json]:
    """The fields of a whole message."""
    if not calls:
        return {}
    if legacy:
        return {"function_call": {"name": calls[0].name, "arguments": calls[0].arguments}}
    return {"tool_calls": [write_call(call) for call in calls]}


def write_call(call: ToolCall) -> dict[str, Json]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def write_started(event: ToolCallStarted, *, legacy: bool) -> dict[str, Json]:
    """The delta that begins a call."""
    if legacy:
        return {"function_call": {"name": event.name, "arguments": ""}}
    call = write_call(ToolCall(event.id, event.name, ""))
    return {"tool_calls": [{"index": event.index} | call]}


def arguments_around(index: int, *, legacy: bool) -> tuple[bytes, bytes]:
    """What stands before and after the JSON text of more arguments, in their delta."""
    before, after = b'{"function_call":{"arguments":', b"}}"
    if not legacy:
        before = b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index
        after = b"}}]}"
    return before, after
