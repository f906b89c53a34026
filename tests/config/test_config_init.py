"""`helexa init`: what it writes is a configuration, and what it prints fits it."""

import stat
import tomllib
from pathlib import Path

import pytest

from helexa.__main__ import main
from helexa.accounts.keys import plain_hash
from helexa.config.read import read_all


def init(capsys: pytest.CaptureFixture[str], file: Path, *args: str) -> str:
    assert main(["init", "--config", str(file), *args]) == 0
    return capsys.readouterr().out


def test_one_machine_gets_a_file_that_opens_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    init(capsys, tmp_path / "new" / "helexa.toml")
    config, _ = read_all(tmp_path / "new" / "helexa.toml", {})
    assert config.gateway.listen == "127.0.0.1:31313"
    assert not config.accounts.require_auth


def test_a_network_gets_a_key_that_is_shown_once_and_kept_as_a_hash(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "helexa.toml"
    printed = init(capsys, file, "--lan")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config, _ = read_all(file, {})
    assert config.accounts.require_auth
    (key,) = (line.strip() for line in printed.splitlines() if line.strip().startswith("hx_"))
    assert config.accounts.keys[0].key_hash == plain_hash(key.encode())
    assert key not in file.read_text()


def test_the_block_for_a_further_machine_has_the_token_that_is_written_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "helexa.toml"
    printed = init(capsys, file, "--lan", "--node", "gpu2=http://gpu2.lan:13131")
    config, _ = read_all(file, {})
    (node,) = config.nodes
    assert (node.name, node.endpoint) == ("gpu2", "http://gpu2.lan:13131")
    block = printed[printed.index("  [gateway]") : printed.index("Start with")]
    there = tmp_path / "there.toml"
    there.write_text(block)
    other, _ = read_all(there, {})
    assert (other.gateway.enabled, other.node.name) == (False, "gpu2")
    assert other.node.token == node.token != ""


def test_a_file_that_is_there_is_never_overwritten(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "helexa.toml"
    file.write_text("# mine\n")
    assert main(["init", "--config", str(file)]) != 0
    assert "is there already" in capsys.readouterr().err
    assert tomllib.loads(file.read_text()) == {}


@pytest.mark.parametrize("node", ["", "bad name=http://x:1", "gpu2=ftp://x"])
def test_a_node_without_a_proper_name_and_url_is_refused(node: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["init", "--config", str(tmp_path / "helexa.toml"), "--node", node])
