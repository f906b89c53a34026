"""Bodies of requests with a wrong value in every place, for each dialect."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chat_strategies import json_values
from hypothesis import strategies as st

from helexa.conversation import Json
from helexa.errors import InvalidRequest
from helexa.wire.fields import parse_json

Path = tuple[str | int, ...]
Read = Callable[[Json], object]

WRONG: list[Json] = [None, True, -7, 2.5, 10**30, "?", "x" * 1000, [], [[]], [None], {}, {"?": {}}]

# Any value is right below these.
OPAQUE = ("parameters", "schema", "input_schema", "json", "date", "metadata", "action", "operation")
# The types that a field may have beside that of the value in a body.
ALSO = {
    "content": (str, list),
    "system": (str, list),
    "summary": (str, list),
    "input": (str, list, dict),
    "output": (str, list, dict),
    "stop": (str, list),
    "image_url": (str, dict),
    "arguments": (str, dict),
    "tool_choice": (str, dict),
    "function_call": (str, dict),
    "json": (str, dict),
    "prompt": (str, list),
}


def paths(value: Json, path: Path = ()) -> Iterator[Path]:
    """Every place in `value` but what is below an opaque field."""
    if path:
        yield path
    inner: list[tuple[str | int, Json]] = []
    if isinstance(value, dict) and (not path or path[-1] not in OPAQUE):
        inner = [*value.items()]
    elif isinstance(value, list):
        inner = [*enumerate(value)]
    for key, each in inner:
        yield from paths(each, (*path, key))


def at(value: Json, path: Path) -> Json:
    for key in path:
        value = value[key]
    return value


def changed(body: Json, path: Path, value: Json) -> Json:
    body = copy.deepcopy(body)
    at(body, path[:-1])[path[-1]] = value
    return body


def written(path: Path) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def related(param: str | None, path: str) -> bool:
    """Whether an error names the field, one that holds it, or one that it holds."""
    return param is not None and (param.startswith(path) or path.startswith(param))


def refers(param: str | None, path: Path) -> bool:
    """Whether an error names the choice of a tool where the change took that tool away."""
    chosen = param is not None and param.startswith(("tool_choice", "function_call"))
    return chosen and path[0] in ("tools", "functions")


def refusal(read: Read, body: Json) -> InvalidRequest | None:
    try:
        read(body)
    except InvalidRequest as error:
        return error
    return None


def may_be(path: Path, right: Json, value: Json) -> bool:
    """Whether `value` is of a type that the field may have."""
    if value is None or path[-1] in ("date", "action", "operation"):
        return True
    if isinstance(right, bool) or isinstance(value, bool):
        return isinstance(right, bool) and isinstance(value, bool)
    if isinstance(right, int | float):
        return isinstance(value, int | float)
    if isinstance(path[-1], int) and "prompt" in path and len(path) == 2:
        return isinstance(value, str | list)
    return isinstance(value, ALSO.get(str(path[-1]), type(right)))


def check_every_wrong_type(read: Read, body: Json) -> None:
    for path in paths(body):
        for value in WRONG:
            error = refusal(read, changed(body, path, value))
            if error is None:
                assert may_be(path, at(body, path), value), (written(path), value)
            elif value is not None:
                named = related(error.param, written(path)) or refers(error.param, path)
                assert named, (written(path), value, error.param)
                assert 0 < len(error.message) < 300


def check_random_changes(bodies: Sequence[Any], data: st.DataObject) -> None:
    """Whatever stands in up to three places of one of `bodies` (pytest params) is read, or refused."""
    read, body = data.draw(st.sampled_from([param.values for param in bodies]))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([*paths(body)]))
        body = changed(body, path, data.draw(json_values))
    error = refusal(read, body)
    assert error is None or error.status == 400


def check_deep_nesting(read: Read, body: Json, opening: str, depth: int) -> None:
    """What is nested `depth` deep, in any place of a body, is read, or refused in few words."""
    closing = "}" if opening == '{"a":' else "]"
    deep = parse_json(f'{{"a":{opening * depth}1{closing * depth}}}'.encode())["a"]
    for path in [*paths(body), ("unknown",)]:
        error = refusal(read, changed(body, path, deep))
        assert error is None or len(error.message) < 300
