"""What `tools/` does before helexa runs: an environment that works, and the model that is served."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen

from helexa.fleet.catalogue import DEMO_MODEL

ROOT = Path(__file__).parents[2]

# A Python whose virtual environments are made at once and install nothing.
PYTHON = """#!/bin/sh
echo "python $*" >>{log}
case "$1 $2" in
    "-m venv")
        [ ! -e {broken} ] || {{ echo "ensurepip is not available"; exit 1; }}
        mkdir -p "$3/bin" && cp {made}/* "$3/bin" ;;
    "-m pip") [ "$3" != install ] || [ ! -e {offline} ] || {{ rm {offline}; exit 1; }} ;;
    *) exec {python} "$@" ;;
esac
"""
HELEXA = """#!/bin/sh
echo "helexa $*" >>{log}
"""


@frozen
class Tools:
    """The tools, with an environment of their own in which nothing is real."""

    folder: Path

    def make(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            text.format(
                log=self.folder / "log",
                broken=self.folder / "no-ensurepip",
                offline=self.folder / "offline",
                made=self.folder / "made",
                python=sys.executable,
            )
        )
        file.chmod(0o755)

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", *command],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "HELEXA_VENV": str(self.folder / "venv"),
                "HELEXA_PYTHON": str(self.folder / "python"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    tools = Tools(tmp_path)
    tools.make("python", PYTHON)
    tools.make("made/python", PYTHON)
    tools.make("made/helexa", HELEXA)
    return tools


def helexa_calls(tools: Tools) -> list[str]:
    return [line for line in tools.log if line.startswith("helexa ")]


def test_up_fetches_the_demo_model_and_serves(tools: Tools) -> None:
    done = tools.run("tools/up")
    assert done.returncode == 0, done.stderr
    assert helexa_calls(tools) == [
        f"helexa models add {DEMO_MODEL.source}",
        "helexa serve --greet",
    ]


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_up_fetches_into_the_store_that_is_served(tools: Tools, form: str) -> None:
    file = tools.folder / "helexa.toml"
    file.write_text(f'[store]\ndir = "{tools.folder}/store"\n')
    options = form.format(file)
    done = tools.run("tools/up", "--", *options.split(" "))
    assert done.returncode == 0, done.stderr
    assert helexa_calls(tools) == [
        f"helexa models {options} add {DEMO_MODEL.source}",
        f"helexa serve --greet {options}",
    ]


def test_up_fetches_nothing_that_the_catalogue_does_not_list(tools: Tools) -> None:
    file, catalogue = tools.folder / "helexa.toml", tools.folder / "models.toml"
    file.write_text(f'[models]\ncatalogue = "{catalogue}"\n')
    catalogue.write_text('[[models]]\nid = "mine"\nsource = "path:/models/mine"\n')
    done = tools.run("tools/up", "--", "--config", str(file))
    assert "nothing is fetched" in done.stdout
    assert helexa_calls(tools) == [f"helexa serve --greet --config {file}"]


def test_up_tells_the_mistakes_of_a_configuration_and_fetches_nothing(tools: Tools) -> None:
    file = tools.folder / "helexa.toml"
    file.write_text("[gateway]\nlisten = 7\n")
    done = tools.run("tools/up", "--", "--config", str(file))
    assert done.returncode == 2
    assert "gateway.listen" in done.stderr
    assert helexa_calls(tools) == []


@pytest.mark.parametrize("words", [(), ("everything",)])
def test_soak_without_a_part_to_try_says_which_there_are(
    tools: Tools, words: tuple[str, ...]
) -> None:
    done = tools.run("tools/soak", *words)
    assert done.returncode == 2
    assert "tools/soak accounts [--bursts 50] [--kills 100]" in done.stderr


def test_soak_tries_a_part_with_what_it_is_told(tools: Tools) -> None:
    done = tools.run("tools/soak", "accounts", "--help")
    assert done.returncode == 0, done.stderr
    assert "python tools/soak_accounts.py --help" in tools.log


def test_an_environment_is_made_once(tools: Tools) -> None:
    for _ in range(2):
        assert tools.run("tools/up", "--no-start").returncode == 0
    made = [line for line in tools.log if line.startswith("python -m venv")]
    installed = [line for line in tools.log if line.startswith("python -m pip install")]
    assert (len(made), len(installed)) == (1, 1)


def test_an_install_that_breaks_off_is_tried_again(tools: Tools) -> None:
    (tools.folder / "offline").touch()
    done = tools.run("tools/up", "--no-start")
    assert done.returncode == 0, done.stderr
    assert "that failed; 2 more tries" in done.stderr
    installed = [line for line in tools.log if line.startswith("python -m pip install")]
    assert len(installed) == 2


def test_a_half_made_environment_is_made_whole(tools: Tools) -> None:
    tools.make("venv/bin/python", "#!/bin/sh\necho 'No module named pip' >&2; exit 1\n")
    done = tools.run("tools/up", "--no-start")
    assert done.returncode == 0, done.stderr
    assert f"python -m venv {tools.folder / 'venv'}" in tools.log
    assert len(helexa_calls(tools)) == 1


def test_a_python_without_venv_is_told_in_words(tools: Tools) -> None:
    (tools.folder / "no-ensurepip").touch()
    done = tools.run("tools/up")
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
