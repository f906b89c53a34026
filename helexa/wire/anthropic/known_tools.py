"""Tools that a Messages request names by their type alone and that its client runs itself."""

from helexa.conversation import Json, Tool

STRING: Json = {"type": "string"}
LINES: Json = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
EDITS: dict[str, Json] = {
    "path": STRING,
    "file_text": STRING,
    "old_str": STRING,
    "new_str": STRING,
    "insert_line": {"type": "integer"},
    "insert_text": STRING,
    "view_range": LINES,
}


def known_tool(kind: str, name: str | None) -> Tool | None:
    """The tool of a type such as `bash_20250124`; None for one whose arguments are not known."""
    family, _, version = kind.rpartition("_")
    if not version.isdecimal():
        return None
    match family:
        case "bash":
            return bash(name or family)
        case "text_editor":
            return text_editor(name or "str_replace_based_edit_tool")
        case "memory":
            return memory(name or family)
        case _:
            return None


def bash(name: str) -> Tool:
    arguments = {
        "command": STRING | {"description": "The command to run."},
        "restart": {"type": "boolean", "description": "True to begin a new shell instead."},
    }
    return Tool(name, "Run a command in a shell that stays open between calls.", schema(arguments))


def text_editor(name: str) -> Tool:
    commands = ["view", "create", "str_replace", "insert"]
    if name == "str_replace_editor":  # of the models before 2025-04
        commands.append("undo_edit")
    description = (
        "View, create and edit files. view shows a directory, or a file from line to line "
        "(view_range); create writes file_text to path; str_replace puts new_str in place of "
        "old_str, which must occur once; insert puts text after the line insert_line."
    )
    return Tool(name, description, schema(command(commands) | EDITS, "command", "path"))


def memory(name: str) -> Tool:
    commands = ["view", "create", "str_replace", "insert", "delete", "rename"]
    paths = {"old_path": STRING, "new_path": STRING}
    description = (
        "Keep notes between conversations as files under /memories: view, create, str_replace, "
        "insert and delete take a path; rename takes old_path and new_path."
    )
    return Tool(name, description, schema(command(commands) | EDITS | paths, "command"))


def command(commands: list[str]) -> dict[str, Json]:
    return {"command": {"type": "string", "enum": commands}}


def schema(properties: dict[str, Json], *required: str) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}
