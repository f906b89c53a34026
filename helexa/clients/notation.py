"""YAML and TOML as far as configuration files of clients need them: nested maps, lists, scalars."""

from collections.abc import Iterator, Mapping

import orjson

from helexa.conversation import Json


def json(value: Json) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"


def scalar(value: Json) -> str:
    """A string, number, boolean or empty container, in a notation that YAML and TOML share with JSON."""
    written = orjson.dumps(value).decode()
    if isinstance(value, float) and "." not in written:
        mantissa, _, exponent = written.partition("e")
        return f"{mantissa}.0e{exponent}"  # YAML takes 2e-6 for a word
    return written


def yaml(value: Json) -> str:
    """A block-style document; strings are quoted, so that none can be taken for something else."""
    return "\n".join(yaml_lines(value)) + "\n"


def yaml_lines(value: Json) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            if is_block(item):
                yield f"{key}:"
                yield from (f"  {line}" for line in yaml_lines(item))
            else:
                yield f"{key}: {scalar(item)}"
    elif isinstance(value, list) and value:
        for item in value:
            first, *rest = yaml_lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield scalar(value)


def is_block(value: Json) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def toml(value: Mapping[str, Json]) -> str:
    """Scalars first, then each map as a table."""
    return "\n".join(toml_lines(value, ())) + "\n"


def toml_lines(value: Mapping[str, Json], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: item for key, item in value.items() if isinstance(item, Mapping)}
    plain = {key: item for key, item in value.items() if key not in tables}
    if path and (plain or not tables):
        yield f"\n[{'.'.join(path)}]"
    yield from (f"{key} = {scalar(item)}" for key, item in plain.items())
    for key, table in tables.items():
        yield from toml_lines(table, (*path, key))


def shell(variables: Mapping[str, str]) -> str:
    """NAME=value lines as env files and container runtimes read them: unquoted."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())
