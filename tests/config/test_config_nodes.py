"""`[[nodes]]`: the hosts of a fleet beside this one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.config.read import config_warnings
from helexa.config.schema import Config, RemoteNode

Read = Callable[..., Config]
Mistakes = Callable[..., list[str]]

GPU = '[[nodes]]\nname = "gpu"\nendpoint = "http://gpu.lan:13131"\n'


def test_a_node_needs_a_name_and_an_endpoint(read: Read, mistakes: Mistakes) -> None:
    assert read(GPU).nodes == (RemoteNode("gpu", "http://gpu.lan:13131"),)
    found = mistakes("[[nodes]]\n")
    assert [line.split(": ")[1] for line in found] == ["nodes[0].endpoint", "nodes[0].name"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://gpu",
        "https://gpu.lan",
        "http://10.0.0.7:13131",
        "http://[fd00::7]:1/",
        "https://a/b",
    ],
)
def test_an_endpoint_is_a_url(read: Read, endpoint: str) -> None:
    assert read(GPU.replace("http://gpu.lan:13131", endpoint)).nodes[0].endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "gpu.lan:13131",
        "ftp://gpu.lan",
        "HTTPS://gpu.lan",
        "http://",
        "http://gpu lan",
        "http://gpu.lan:99999",
        "http://gpu.lan:0",
        "http://gpu.lan/?a=b",
        "http://gpu.lan/#a",
        "http://grün.lan",
        "unix:/run/x",
    ],
)
def test_what_is_no_url_is_told_with_its_place(mistakes: Mistakes, endpoint: str) -> None:
    (only,) = mistakes(GPU.replace("http://gpu.lan:13131", endpoint))
    assert only.startswith("helexa.toml:3: nodes[0].endpoint: expected a URL such as")


def test_a_password_in_a_url_is_refused_and_never_shown(mistakes: Mistakes) -> None:
    (only,) = mistakes(GPU.replace("gpu.lan", "ann:s3cret@gpu.lan"))
    assert "nodes[0].endpoint: expected a URL" in only
    assert "s3cret" not in only


def test_a_token_is_never_shown(mistakes: Mistakes, read: Read) -> None:
    (only,) = mistakes(GPU + 'token = "s3 cret"\n')
    assert "nodes[0].token" in only
    assert "s3 cret" not in only
    assert "s3cret" not in repr(read(GPU + 'token = "s3cret"\n'))


def test_names_and_endpoints_are_unique_and_the_own_name_is_taken(mistakes: Mistakes) -> None:
    found = mistakes(
        GPU + GPU + '[[nodes]]\nname = "local"\nendpoint = "http://gpu.lan:13131/"\nkind = "vllm"\n'
    )
    told = [line.partition("\n")[0] for line in found]
    assert told == [
        'helexa.toml:5: nodes[1].name: is the name of nodes[0] too, got "gpu"',
        "helexa.toml:6: nodes[1].endpoint: is the endpoint of nodes[0] too, "
        'got "http://gpu.lan:13131"',
        'helexa.toml:8: nodes[2].name: is the name of this host\'s own node too, got "local"',
        "helexa.toml:9: nodes[2].endpoint: is the endpoint of nodes[0] too, "
        'got "http://gpu.lan:13131/"',
        'helexa.toml:10: nodes[2].kind: expected one of "helexa", "neuron", "openai", got "vllm"',
    ]


def test_a_gateway_alone_may_call_a_node_local(read: Read) -> None:
    assert read("[node]\nenabled = false\n" + GPU.replace('"gpu"', '"local"')).nodes


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ('token = "a"\ntoken_file = "/dev/null"', "token_file: stands beside token"),
        ('token_file = "/nonexistent"', "token_file: cannot be read by this user"),
        ('token_file = "/dev/null"', "token_file: is empty"),
        ('token_file = "token"', "token_file: expected an absolute path"),
        ('tls_ca = "/dev/null"', "tls_ca: is for endpoints that begin with https://"),
        ('models = ["a"]', "models: is for openai upstreams"),
        ("max_in_flight = 4", "max_in_flight: is for openai upstreams"),
        ('inference_endpoints = ["http://b"]', "inference_endpoints: is for neurons"),
        ('kind = "neuron"\ninference_endpoints = ["b"]', "inference_endpoints: expected a URL"),
        ("port = 1", "port: is unknown"),
    ],
)
def test_options_that_do_not_fit_are_told(mistakes: Mistakes, option: str, told: str) -> None:
    (only,) = mistakes(GPU + option + "\n")
    assert f"nodes[0].{told}" in only


def test_a_token_file_holds_one_token(mistakes: Mistakes, read: Read, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("two words\n")
    (only,) = mistakes(GPU + f'token_file = "{file}"\n')
    assert "must hold printable ASCII" in only
    file.write_bytes(b"\xff\xfe")
    (only,) = mistakes(GPU + f'token_file = "{file}"\n')
    assert "must hold printable ASCII" in only
    file.write_text("s3cret\n")
    assert read(GPU + f'token_file = "{file}"\n').nodes[0].token == "s3cret"


def test_a_certificate_file_holds_certificates(mistakes: Mistakes, tmp_path: Path) -> None:
    secure = GPU.replace("http:", "https:")
    (only,) = mistakes(secure + 'tls_ca = "/nonexistent.pem"\n')
    assert "tls_ca: cannot be read" in only
    (tmp_path / "ca.pem").write_text("nothing\n")
    (only,) = mistakes(secure + f'tls_ca = "{tmp_path}/ca.pem"\n')
    assert "tls_ca: must hold certificates in PEM form" in only


def test_paths_may_begin_with_the_home_directory(read: Read, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    found = read(GPU + 'token_file = "~/token"\n', {"HOME": str(tmp_path)})
    assert found.nodes[0].token_file == f"{tmp_path}/token"


def test_a_mistake_in_one_node_leaves_other_sections_to_be_checked(mistakes: Mistakes) -> None:
    found = mistakes(
        GPU + 'kind = "x"\n[node]\nlisten = "0.0.0.0:13131"\n[fleet]\npoll_seconds = 0\n'
    )
    assert len(found) == 3


def test_a_file_with_the_token_of_a_node_is_for_its_owner_alone(tmp_path: Path, read: Read) -> None:
    config = read(GPU + 'token = "t"\n')
    file = tmp_path / "helexa.toml"
    file.chmod(0o644)
    assert "holds a token" in config_warnings(file, config)[0]
    file.chmod(0o600)
    assert config_warnings(file, config) == []
