"""The rules of the house, read off the sources."""

import ast
import re
from pathlib import Path

import pytest

import helexa

ROOT = Path(helexa.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def imports(path: Path) -> set[str]:
    """The packages that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_torch_lives_in_the_engine_and_the_devices_and_never_beside_trio(name: str) -> None:
    found = imports(ROOT / name)
    if "torch" in found:
        assert name.startswith(("engine/", "devices/"))
    if name.startswith(("engine/", "devices/")):
        assert "trio" not in found


PURE = ("fleet/", "wire/", "text/", "conversation.py", "errors.py", "desired.py")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(PURE)])
def test_pure_rooms_know_neither_trio_nor_the_network(name: str) -> None:
    assert not imports(ROOT / name) & {
        "trio",
        "quart",
        "quart_trio",
        "hypercorn",
        "socket",
        "httpx2",
    }


@pytest.mark.parametrize("name", NAMES)
def test_nobody_locks_and_nobody_writes_what_is_global(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global"
        if isinstance(node, ast.Attribute | ast.Name):
            word = node.attr if isinstance(node, ast.Attribute) else node.id
            assert word not in {"Lock", "RLock"}, f"line {node.lineno}: {word}"


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id in {"list", "dict", "set", "deque", "defaultdict", "Counter"}
    return isinstance(value, ast.List | ast.Set | ast.ListComp | ast.SetComp)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_keeps_no_state(name: str) -> None:
    """Lists and sets may not stand at module level; a dict only as a constant table, in capitals."""
    for node in ast.parse((ROOT / name).read_text()).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        words = [target.id for target in targets if isinstance(target, ast.Name)]
        if words == ["__all__"]:
            continue
        assert not is_mutable(node.value), words
        if isinstance(node.value, ast.Dict | ast.DictComp):
            assert all(word.isupper() for word in words), words


@pytest.mark.parametrize("name", NAMES)
def test_every_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / name).read_text())), "no docstring"


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 500


def test_the_map_names_every_room() -> None:
    """`helexa/__init__.py` tells where to look for what."""
    rooms = {path.parent.name for path in FILES if path.parent.parent == ROOT}
    said = ast.get_docstring(ast.parse((ROOT / "__init__.py").read_text())) or ""
    missing = {room for room in rooms if not re.search(rf"\b{room}/", said)}
    assert not missing
