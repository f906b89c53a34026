"""The catalogue in force follows its file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from helexa.config.read import read_catalogue
from helexa.config.schema import Config, Models, Node
from helexa.fleet.catalogue import Catalogue
from helexa.shelf import LOOK_SECONDS, Shelf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


@pytest.fixture
async def shelf(file: Path, autojump_clock: object, nursery: trio.Nursery) -> Shelf:
    write(file, '[[models]]\nid = "first"\n')
    config = Config(models=Models(catalogue=str(file)), node=Node(enabled=False))
    shelf = Shelf(read_catalogue(config), lambda: read_catalogue(config), lambda: file)
    await nursery.start(shelf.watch)
    return shelf


def write(file: Path, text: str) -> None:
    """As careful editors do, into another file first."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.rename(file)


def remove(file: Path) -> None:
    file.unlink()


async def until(condition: Callable[[], bool]) -> None:
    """A file is read in a real thread, however fast the clock is."""
    for _ in range(100_000):
        if condition():
            return
        await trio.sleep(LOOK_SECONDS)
    assert condition()


def ids(catalogue: Catalogue) -> list[str]:
    return [model.id for model in catalogue.models]


async def test_a_file_that_was_written_is_read_again(
    autojump_clock: object, shelf: Shelf, file: Path
) -> None:
    write(file, '[[models]]\nid = "first"\n[[models]]\nid = "second"\n')
    await until(lambda: ids(shelf.catalogue) == ["first", "second"])


async def test_a_bad_file_is_refused_whole_and_the_old_one_kept(
    autojump_clock: object, shelf: Shelf, file: Path
) -> None:
    write(file, '[[models]]\nid = "third"\n[[models]]\nid = "third"\n')
    assert await shelf.reload()
    assert ids(shelf.catalogue) == ["first"]
    write(file, '[[models]]\nid = "mended"\n')
    await until(lambda: ids(shelf.catalogue) == ["mended"])


async def test_a_file_that_vanishes_changes_nothing(
    autojump_clock: object, shelf: Shelf, file: Path
) -> None:
    remove(file)
    await trio.sleep(5 * LOOK_SECONDS)
    assert ids(shelf.catalogue) == ["first"]


async def test_an_untouched_file_is_read_once(autojump_clock: object, shelf: Shelf) -> None:
    before = shelf.catalogue
    await trio.sleep(10 * LOOK_SECONDS)
    assert shelf.catalogue is before
