"""`helexa client-config` as a command, before real gateways and others."""

import json
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from coding_agents import install_packages
from process import Helexa

from helexa.clients.command import CLIENTS
from helexa.clients.listing import fetch_models
from helexa.errors import HelexaError

CONTINUE = {"@continuedev/config-yaml": "1.42.0"}
VALIDATE = """
import { readFileSync } from "node:fs";
import { configYamlSchema, parseConfigYaml } from "@continuedev/config-yaml";
const found = parseConfigYaml(readFileSync(0, "utf8"));
console.log(JSON.stringify(configYamlSchema.parse(found).models));
"""


def client_config(*args: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "helexa", "client-config", *args],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_it_prints_a_configuration_for_the_gateway_that_runs(served: Helexa, client: str) -> None:
    printed = client_config(client, "--url", served.url())
    assert printed.returncode == 0
    assert served.url() in printed.stdout
    assert "smollm2-135m-instruct" in printed.stdout


def test_an_alias_is_a_name_of_a_model(scripted: Helexa, tmp_path: Path) -> None:
    url, alias = scripted.url(), ("--model", "small", "--small-model", "small")
    assert client_config("codex", "--url", url, *alias, "--write", str(tmp_path)).returncode == 0
    config = tomllib.loads((tmp_path / "config.toml").read_text())
    assert (config["model"], config["model_context_window"]) == ("small", 131072)
    listed = json.loads((tmp_path / "helexa-models.json").read_text())["models"]
    assert {"scripted", "small"} <= {model["slug"] for model in listed}
    config = json.loads(client_config("opencode", "--url", url, *alias).stdout)
    assert (config["model"], config["small_model"]) == ("helexa/small", "helexa/small")


def test_continue_reads_what_is_printed_with_its_own_reader(
    served: Helexa, store_dir: Path
) -> None:
    folder = install_packages(store_dir, CONTINUE).parents[1]
    printed = client_config("continue", "--url", served.url()).stdout
    (folder / "validate.mjs").write_text(VALIDATE)
    read = subprocess.run(
        ["node", "validate.mjs"],
        cwd=folder,
        input=printed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert read.returncode == 0, read.stderr
    model = json.loads(read.stdout)[0]
    assert model["model"] == "smollm2-135m-instruct"
    assert model["apiBase"] == f"{served.url()}/v1"
    assert model["defaultCompletionOptions"] == {"contextLength": 8192, "maxTokens": 2048}


def test_it_writes_files_and_never_over_one_that_is_there(served: Helexa, tmp_path: Path) -> None:
    command = ("aider", "--url", served.url(), "--write", str(tmp_path))
    assert client_config(*command).returncode == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".aider.conf.yml",
        ".aider.model.metadata.json",
    ]
    again = client_config(*command)
    assert again.returncode == 1
    assert "cannot be written: File exists" in again.stderr


# -- gateways that do not answer as hoped ----------------------------------------------------------------


@pytest.fixture
def locked() -> Iterator[str]:
    """The URL of a gateway that wants the key `secret`."""

    class Locked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            opened = self.headers["authorization"] == "Bearer secret"
            body = json.dumps(LISTING if opened else {}).encode()
            self.send_response(200 if opened else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


LISTING = {"data": [{"id": "m", "limit": {"context": 64000, "input": 56000, "output": 8000}}]}


def test_the_key_is_sent_and_stands_in_no_file(
    locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HelexaError, match="answered 401: set HELEXA_API_KEY"):
        fetch_models(locked)
    for key in ("secret", "secret\n"):
        monkeypatch.setenv("HELEXA_API_KEY", key)
        assert fetch_models(locked) == LISTING
    printed = client_config("llm", "--url", locked, HELEXA_API_KEY="secret")
    assert printed.returncode == 0, printed.stderr
    assert "secret" not in printed.stdout + printed.stderr


@pytest.mark.parametrize("key", ["sec\nret", "s\xe9cret"])
def test_a_key_that_cannot_be_one_is_refused_and_not_told(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("HELEXA_API_KEY", key)
    with pytest.raises(HelexaError) as refused:
        fetch_models("http://127.0.0.1:9")
    assert refused.value.message == "HELEXA_API_KEY holds characters that no key has."


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://[::1]:9", "No gateway answers at https://[::1]:9/v1/models"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://a b", "No gateway answers"),
        ("localhost:31313", "it must begin with http:// or https://"),
    ],
)
def test_an_address_where_no_gateway_is_is_told(url: str, told: str) -> None:
    with pytest.raises(HelexaError) as refused:
        fetch_models(url)
    assert told in refused.value.message


def test_a_server_that_speaks_another_protocol_is_no_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, args=(server,)).start()
        with pytest.raises(HelexaError, match="No gateway answers"):
            fetch_models(f"http://127.0.0.1:{server.getsockname()[1]}")


def greet(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"220 mail.example ESMTP\r\n")


def test_the_command_says_in_a_line_that_no_gateway_answers() -> None:
    refused = client_config("codex", "--url", "http://127.0.0.1:9")
    assert refused.returncode == 1
    assert refused.stderr.startswith("No gateway answers at http://127.0.0.1:9/v1/models")
    assert len(refused.stderr.splitlines()) == 1
