"""What systemd sees: readiness, the watchdog, the end; and a device that is lost for good."""

import os
import socket
from pathlib import Path

import pytest
from process import MODEL, READY_DEVICE, call, chat, helexa, select_nothing

pytestmark = pytest.mark.real


def test_systemd_hears_of_readiness_life_and_the_end(store_dir: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        options = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with helexa(tmp_path / "state", store_dir, options, READY_DEVICE) as process:
            heard = ""
            while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
                heard += notified.recv(4096).decode() + "\n"
            assert process.stop() == 0
            while "STOPPING=1" not in heard:
                heard += notified.recv(4096).decode() + "\n"


def test_a_lost_device_ends_the_process_with_5_and_a_restart_brings_its_models_back(
    store_dir: Path, tmp_path: Path
) -> None:
    server = (str(Path(__file__).with_name("poisoned_server.py")),)
    with helexa(tmp_path / "state", store_dir, {}, server) as process:
        url = process.url() + "/v1/chat/completions"
        assert call("POST", url, chat(max_tokens=2))[0] == 200
        status, headers, refused = call("POST", url, chat(max_tokens=2))
        assert (status, refused["error"]["code"]) == (503, "service_unavailable")
        assert "retry-after" in headers
        assert process.process.wait(30) == 5
        (poisoned,) = process.events("device poisoned")
        assert "illegal memory access" in poisoned["reason"]
        process.restart()
        assert [(m["id"], m["status"]) for m in process.status["models"]] == [(MODEL, "loaded")]


def test_the_process_is_gone_when_its_port_is_asked_again(store_dir: Path, tmp_path: Path) -> None:
    with helexa(tmp_path / "state", store_dir, {}, READY_DEVICE) as process:
        url = process.url()
        process.kill()
        for _ in range(100):
            if not os.path.exists(f"/proc/{process.process.pid}"):
                break
            select_nothing(0.02)
        with pytest.raises(OSError, match="refused"):
            call("GET", url + "/health")
        done = process.ctl("status")
        assert done.returncode == 3
        assert "helexa" in done.stderr
