"""Every mistake at once, each with its place, its path, what was expected, and its line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.config.read import read_config
from helexa.config.schema import Config
from helexa.errors import ConfigError

Mistakes = Callable[..., list[str]]


def test_an_empty_file_is_the_default(read: Callable[[str], Config]) -> None:
    assert read("") == Config()


def test_no_file_at_all_is_the_default(nowhere: Path) -> None:
    assert read_config(None, {}, nowhere) == Config()


def test_the_usual_place_is_read_when_no_file_is_named(tmp_path: Path) -> None:
    usual = tmp_path / "usual.toml"
    usual.write_text('[node]\nname = "gpu1"')
    assert read_config(None, {}, usual).node.name == "gpu1"


def test_values_are_taken_and_whole_numbers_stand_for_floats(
    read: Callable[[str], Config],
) -> None:
    config = read(
        '[limits]\nmax_body_mb = 16\n[admission]\nmax_per_principal = 3\n[[node.devices]]\nuuid = "a"'
    )
    assert config.limits.max_body_mb == 16.0
    assert isinstance(config.limits.max_body_mb, float)
    assert config.admission.max_per_principal == 3
    assert config.node.devices[0].uuid == "a"


def test_a_mistake_names_file_line_path_expectation_value_and_shows_the_line(
    mistakes: Mistakes,
) -> None:
    assert mistakes('# top\n[gateway]\nlisten = "nonsense"  # here\n') == [
        'helexa.toml:3: gateway.listen: expected "host:port" such as "127.0.0.1:31313" or '
        '"[::1]:31313", got "nonsense"\n'
        '       3 | listen = "nonsense"  # here'
    ]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(mistakes: Mistakes) -> None:
    found = mistakes(
        '[node]\nenabled = "yes"\nname = 5\n[[node.devices]]\nreserve_mb = -1\n'
        '[limits]\nmax_headers = 1.5\n[server]\nlog_format = "xml"\nlog_levle = "info"\n[nod]\n'
    )
    assert [line.partition("\n")[0] for line in found] == [
        'helexa.toml:2: node.enabled: expected true or false, got "yes"',
        "helexa.toml:3: node.name: expected text in quotes, got 5",
        "helexa.toml:4: node.devices[0].uuid: is missing",
        "helexa.toml:5: node.devices[0].reserve_mb: expected 0 or a number above it, got -1",
        "helexa.toml:7: limits.max_headers: expected a whole number, got 1.5",
        'helexa.toml:9: server.log_format: expected one of "auto", "human", "json", got "xml"',
        'helexa.toml:10: server.log_levle: is unknown; did you mean "log_level"?',
        'helexa.toml:11: nod: is unknown; did you mean "node"?',
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gateway = 5", "gateway: expected a table, got 5"),
        ("[[gateway]]", "gateway: expected a table"),
        ('[models]\npreload = "demo"', "expected a list of text in quotes in [...]"),
        ("[models]\npreload = [1]", "models.preload[0]: expected text in quotes, got 1"),
        ('[models]\npreload = ["../x"]', "models.preload: expected a model id"),
        ("[server]\ndrain_seconds = nan", "expected a finite number"),
        ("[server]\ndrain_seconds = inf", "expected a finite number"),
        ("[server]\ndrain_seconds = true", "expected a number, got true"),
        ("[server]\ndrain_seconds = 2020-01-01", 'expected a number, got "2020-01-01"'),
        ("[server]\ndrain_seconds = {}", "expected a number, got a table"),
        ("[limits]\nmax_headers = 0", "expected a number above 0, got 0"),
        ("[limits]\nmax_headers = true", "expected a whole number, got true"),
        ('[admission]\nmax_per_principal = "many"', 'expected a whole number or "auto"'),
        ("[admission]\nmax_per_principal = -1", "expected a whole number from 0 on"),
        ("[admission]\nmax_per_principal = true", "expected a whole number"),
        ('[node]\nname = "a b"', "expected a name of letters"),
        ('[node]\nname = "a\\u0007"', 'without control characters, got "a\\u0007"'),
        ('[node]\ntrusted_peers = ["lan"]', "expected addresses or networks"),
        ('[node]\nallow_sources = ["ftp:"]', "expected patterns of sources"),
        ('[node]\nallowed_hosts = ["a b"]', "expected host names"),
        ('[node]\nallowed_origins = ["chat.lan"]', "expected origins"),
        ('[server]\nstate_dir = "state"', "expected an absolute path"),
        ('[gateway]\nlisten = ":80"', "expected"),
        ('[gateway]\nlisten = "127.0.0.1:70000"', "expected"),
        ("[gateway]\nmax_queue_depth = 1", "is unknown; it belongs in [admission]"),
        ('listen = "x"', "listen: is unknown; it belongs in [gateway], [node], [metrics]"),
        ("[gateway]\nzzz = 1", "gateway.zzz: is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(mistakes: Mistakes, text: str, words: str) -> None:
    (only,) = mistakes(text)
    assert words in only


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[gateway\nlisten = 1", "helexa.toml:1: is not TOML: "),
        ("[gateway]\nlisten = \n", "helexa.toml:2: is not TOML: Invalid value"),
        ("[gateway]\nlisten = 1\nlisten = 2", "helexa.toml:3: is not TOML: "),
        ("[gateway]\nlisten = [", "helexa.toml:2: is not TOML: "),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_the_line(
    mistakes: Mistakes, text: str, place: str
) -> None:
    (only,) = mistakes(text)
    assert only.startswith(place)
    assert "\n  " in only


def test_a_broken_file_and_a_broken_environment_are_told_together(mistakes: Mistakes) -> None:
    found = mistakes("[gateway", {"HELEXA_NODE__MEMORY_MB": "much"})
    assert len(found) == 2


def test_a_file_that_is_not_there_is_a_mistake(nowhere: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        read_config(nowhere, {}, nowhere)


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_config(tmp_path, {})


def test_a_file_that_is_not_text_is_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "helexa.toml"
    file.write_bytes(b"# fine\n\xff\xfe")
    with pytest.raises(ConfigError, match=r"helexa\.toml:2: is not UTF-8 text"):
        read_config(file, {})


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_config(Path("/dev/zero"), {})


@pytest.mark.parametrize(
    "text",
    [
        '[node]\ntoken = ["hunter2"]',
        '[node]\ntoken = "hunter2 "',
        '[node]\ntokn = "hunter2"',
        '[node]\ndevices = [{ token = "hunter2" }]',
        '[node]\napi_key = "hunter2"',
        '[node]\ntoken = "hunter2',
    ],
)
def test_a_secret_is_never_shown(mistakes: Mistakes, text: str) -> None:
    assert "hunter2" not in "".join(mistakes(text))


def test_control_characters_are_escaped_where_a_mistake_shows_them(mistakes: Mistakes) -> None:
    (only,) = mistakes('[gateway]\n"a\\u001b[31m" = 1\nlisten = "127.0.0.1:0" # \x85\u202e')
    assert only.splitlines()[0].endswith("gateway.a\\x1b[31m: is unknown")
    assert only.isprintable() or only.replace("\n", "").isprintable()
