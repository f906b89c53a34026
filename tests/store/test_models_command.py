"""`helexa models`, as it is typed."""

import io
import json
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
from store_toys import write_checkpoint

from helexa.config.schema import Config, Places
from helexa.config.schema import Store as Settings
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.store.command import register, run
from helexa.store.show import Bar, Lines, shown

Type = Callable[..., int]


@pytest.fixture
def models(tmp_path: Path) -> tuple[CatalogueModel, ...]:
    paths = {name: write_checkpoint(tmp_path / name) for name in ("toy", "other")}
    return (
        CatalogueModel(id="toy-1", source=f"path:{paths['toy']}", aliases=("t",)),
        CatalogueModel(id="org/named-by-its-id"),
    )


@pytest.fixture
def type_in(tmp_path: Path, models: tuple[CatalogueModel, ...], prepared_in_process: None) -> Type:
    """Types the words of a `helexa models` command."""
    parser = ArgumentParser()
    register(parser.add_subparsers(dest="command"))
    places = Places(state_dir=tmp_path, store_dir=tmp_path / "store", socket=tmp_path / "s")
    config = Config(store=Settings(min_free_gb=0))

    def type_words(*words: str) -> int:
        return run(parser.parse_args(["models", *words]), config, places, Catalogue(models))

    return type_words


def test_a_model_is_added_listed_found_and_removed(
    type_in: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type_in("list") == 0
    assert "the store is empty" in capsys.readouterr().out

    assert type_in("add", "t") == 0
    shown_lines = capsys.readouterr()
    assert "is ready" in shown_lines.out
    assert "verifying" in shown_lines.err
    assert "preparing" in shown_lines.err

    assert type_in("path", "toy-1") == 0
    path = Path(capsys.readouterr().out.strip())
    assert (path / "config.json").exists()

    assert type_in("list") == 0
    listed = capsys.readouterr().out
    assert f"source    path:{tmp_path}/toy" in listed
    assert "last use  never" in listed
    assert "needed by toy-1" in listed

    assert type_in("rm", path.name) == 0
    assert "removed" in capsys.readouterr().out
    assert not path.exists()


def test_the_list_is_json_for_programs(
    type_in: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in("add", f"path:{tmp_path}/other")
    capsys.readouterr()
    assert type_in("list", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["source"] == f"path:{tmp_path}/other"
    assert entry["needed_by"] == []
    assert entry["last_used"] is None
    assert entry["bytes"] > 0
    assert Path(entry["path"]).is_dir()


def test_what_no_entry_needs_is_pruned(
    type_in: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in("add", "toy-1")
    type_in("add", f"path:{tmp_path}/other")
    capsys.readouterr()
    assert type_in("prune", "--dry-run") == 0
    assert "would remove other-" in capsys.readouterr().out
    assert type_in("prune") == 0
    assert "removed 1 of the store's models" in capsys.readouterr().out
    type_in("list", "--json")
    assert [m["needed_by"] for m in json.loads(capsys.readouterr().out)] == [["toy-1"]]


def test_a_changed_source_is_added_when_that_is_said(
    type_in: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in("add", "toy-1")
    type_in("rm", "toy-1")
    (tmp_path / "toy" / "chat_template.jinja").write_text("another")
    assert type_in("add", "toy-1") == 1
    assert "--accept-change" in capsys.readouterr().err
    assert type_in("add", "toy-1", "--accept-change") == 0


@pytest.mark.parametrize(
    "words", [("rm", "no"), ("path", "no"), ("add", "no\x1b[31m"), ("add", "")]
)
def test_a_failure_is_one_harmless_sentence_and_exit_code_1(
    type_in: Type, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    assert type_in(*words) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.strip().isprintable()


def test_a_stop_says_that_the_download_is_kept(
    type_in: Type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("helexa.store.store.fetch", stop)
    assert type_in("add", "toy-1") == 130
    assert "goes on with the download" in capsys.readouterr().err


def test_without_a_terminal_a_phase_is_a_line_and_a_long_one_some_more() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Lines(stream, lambda: now[0])
    for second in range(21):
        now[0] = float(second)
        progress("download", second * 1_000_000, 20_000_000)
    progress("verify", 0, 0)
    progress("wait", 0, 0)
    assert stream.getvalue().splitlines() == [
        "downloading: 0.0 MB of 20.0 MB",
        "downloading: 10.0 MB of 20.0 MB",
        "downloading: 20.0 MB of 20.0 MB",
        "verifying",
        "waiting for another process that adds this model",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_phase_is_a_bar() -> None:
    stream = Terminal()
    with shown(stream) as progress:
        assert isinstance(progress, Bar)
        progress("download", 5_000_000, 10_000_000)
        progress("download", 10_000_000, 10_000_000)
        progress("prepare", 0, 0)
    drawn = stream.getvalue()
    assert "downloading" in drawn
    assert "10.0M/10.0M" in drawn
    assert "preparing" in drawn
