"""The documents say what the program does."""

import argparse
import re
from pathlib import Path
from typing import Any

import attrs

from helexa import ctl
from helexa.config.schema import Config
from helexa.service import Exit

DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
CONFIGURATION = (DOCS / "configuration.md").read_text()


def test_every_exit_code_is_explained() -> None:
    told = {int(code): row for code, row in re.findall(r"^\| (\d) \| (.*) \|$", OPERATIONS, re.M)}
    assert set(told) == {int(code) for code in Exit}
    never = {code for code, row in told.items() if row.endswith("no")}
    assert never == {Exit.STOPPED, Exit.CONFIG, Exit.STATE_IN_USE}


def test_every_verb_of_helexa_ctl_is_in_the_table() -> None:
    (verbs,) = (a for a in ctl.parser()._actions if isinstance(a, argparse._SubParsersAction))
    rows = re.findall(r"^\| (`.*?) \|", OPERATIONS, re.M)
    told = {word for row in rows for word in re.findall(r"`([a-z-]+)", row)}
    assert set(verbs.choices) <= told


def test_options_that_are_named_exist() -> None:
    sections: dict[str, Any] = {field.name: field.type for field in attrs.fields(Config)}
    named = re.findall(r"`\[(\w+)\] (\w+)`", OPERATIONS + CONFIGURATION)
    assert named
    for section, option in named:
        assert option in attrs.fields_dict(sections[section])


def test_what_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", OPERATIONS + CONFIGURATION)
    assert links
    assert all((DOCS / link).exists() for link in links)
