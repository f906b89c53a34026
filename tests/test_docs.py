"""The pages are true: links lead somewhere, commands exist, what they show is what is printed."""

import re
from pathlib import Path

import pytest

from helexa.__main__ import parser
from helexa.ctl import parser as ctl_parser
from helexa.serve import greeting

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / "docs" / "clients.md"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https:") or (page.parent / target).exists(), target


def test_every_page_of_docs_is_on_the_map() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[2:] if f"docs/{page.name}" not in readme] == []


def test_the_readme_shows_the_greeting_that_is_printed() -> None:
    printed = greeting("http://127.0.0.1:31313", "smollm2-135m-instruct").strip()
    assert printed in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for program, known in (("helexa", verbs(parser())), ("helexa-ctl", verbs(ctl_parser()))):
        named = set(re.findall(rf"`{program} ([a-z][a-z-]*)", text))
        assert named <= known, f"{program}: {named - known}"


def rows(page: Path) -> list[list[str]]:
    """The cells of every row of the page's tables whose last column names tests."""
    found: list[list[str]] = []
    for block in page.read_text().split("\n\n"):
        cells = [line.strip("|").split("|") for line in block.splitlines() if line[:1] == "|"]
        if cells and cells[0][-1].strip() == "held by":
            found += cells[2:]
    return found


def test_every_row_about_clients_is_held_by_tests_that_exist() -> None:
    files = (file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    tests = {
        name for text in files for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.M)
    }
    table = rows(CLIENTS)
    assert len(table) > 40
    for row in table:
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named, row
        assert set(named) <= tests, set(named) - tests


def verbs(command: object) -> set[str]:
    actions = command._subparsers._group_actions  # type: ignore[attr-defined]
    return set(actions[0].choices)
