"""`helexa check`."""

from argparse import Namespace
from pathlib import Path

import pytest

from helexa.__main__ import parser
from helexa.config.command import run


@pytest.fixture(autouse=True)
def _user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_fine_configuration_says_so_and_what_it_would_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = write(tmp_path / "m.toml", '[[models]]\nid = "qwen"\naliases = ["q"]\n')
    text = f'[node]\nenabled = false\n[models]\ncatalogue = "{models}"\npreload = ["q"]\n'
    assert run(Namespace(config=write(tmp_path / "h.toml", text))) == 0
    out, err = capsys.readouterr()
    assert out.startswith("configuration is fine\n")
    assert "gateway    127.0.0.1:31313" in out
    assert "node  " not in out
    assert "qwen (q) loaded at the first start" in out
    assert err == ""


def test_mistakes_go_to_standard_error_and_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "h.toml", "[node]\nname = 5\nmemory_mb = -1\n")
    assert run(Namespace(config=file)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("2 mistakes; nothing was started\n")


def test_what_is_not_well_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "h.toml", '[node]\ntoken = "hunter2"\n')
    Path(file).chmod(0o644)
    assert run(Namespace(config=file)) == 0
    assert "warning: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["models --config F list", "models list --config F", "check --config F"]
)
def test_the_configuration_is_named_before_or_after_a_verb(words: str) -> None:
    assert parser().parse_args(words.split()).config == Path("F")
    assert parser().parse_args(["models", "list"]).config is None
