"""Room on the disk, links, and files that are what they seem."""

import os
from pathlib import Path

import pytest

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store.files import hash_files, homes, link, regular_file
from helexa.store.progress import silent
from helexa.store.space import Disk, used_bytes

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_disk_has_room_until_a_limit_is_reached(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 600_000)
    disk = Disk(tmp_path, Settings(max_gb=0.001, min_free_gb=0))
    assert disk.room() == 400_000
    disk.check(400_000, "x")
    with pytest.raises(StoreError, match=r"x needs 2\.0 GB .* max_gb = 0\.001"):
        disk.check(2_000_000_000, "x")


def test_what_must_stay_free_stays_free(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Settings(min_free_gb=1e6))
    assert disk.room() < 0
    with pytest.raises(StoreError, match=r"room for 0\.0 GB .*min_free_gb = 1e\+06"):
        disk.check(0, "x")


def test_a_hard_link_counts_once_and_a_symbolic_link_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert used_bytes(tmp_path) == 100


def test_a_link_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")


def test_across_disks_a_link_is_symbolic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"abc")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").readlink() == tmp_path / "a"


def test_hashing_tells_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    told: list[tuple[str, int, int]] = []
    hashes = hash_files({"a": tmp_path / "a", "b": tmp_path / "b"}, lambda *t: told.append(t))
    assert hashes["a"] == SHA256_OF_ABC
    assert told == [("verify", 3, 3)]
    assert hash_files({}, silent) == {}


def test_only_regular_files_inside_their_directory_are_taken(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.write_text("secret")
    (inside / "f").write_text("x")
    (inside / "good").symlink_to("f")
    (inside / "bad").symlink_to("../out")
    (inside / "dangling").symlink_to("nowhere")
    (inside / "loop").symlink_to("loop")
    (inside / "device").symlink_to("/dev/zero")
    os.mkfifo(inside / "pipe")
    assert regular_file(inside / "good", within=inside) == inside / "f"
    with pytest.raises(StoreError, match="leads out of its directory"):
        regular_file(inside / "bad", within=inside)
    for name in ("dangling", "loop"):
        with pytest.raises(StoreError, match="missing or not accessible"):
            regular_file(inside / name, within=inside)
    for name in ("device", "pipe"):
        with pytest.raises(StoreError, match="not a regular file"):
            regular_file(inside / name, within=inside)
    with pytest.raises(StoreError, match="not a regular file"):
        regular_file(inside)


def test_a_hub_caches_snapshot_may_link_into_its_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_text("x")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    assert regular_file(snapshot / "config.json", within=snapshot) == blobs / "1"
    assert homes(tmp_path) == [tmp_path]
