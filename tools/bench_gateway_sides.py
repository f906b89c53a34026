"""The gateways that `bench_gateway.py` compares, each a process (or a few) before one fake upstream."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 120.0
HERE = Path(__file__).resolve().parent
NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {directory}; proxy_temp_path {directory};
  upstream fake {{ server 127.0.0.1:{upstream}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://fake; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
HELEXA = """
[gateway]
listen = "127.0.0.1:{port}"
[node]
enabled = false
[metrics]
listen = "127.0.0.1:0"
[server]
state_dir = "{directory}/state"
log_level = "warning"
[control]
socket = "{directory}/s"
[admission]
max_queue_depth = 1024
[[nodes]]
name = "fake"
endpoint = "http://127.0.0.1:{upstream}"
kind = "openai"
"""
LITELLM = """
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
litellm_settings:
  telemetry: false
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


@frozen
class Side:
    """One of those compared.  `pid` is None for the upstream asked directly."""

    name: str
    port: int
    pid: int | None = None

    def cpu_seconds(self) -> float:
        """Of the process and all that descend from it."""
        ticks = 0
        for pid in descendants(self.pid) if self.pid else ():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def memory_mb(self) -> float:
        """What they hold, pages that are shared divided among those who share them."""
        kib = 0
        for pid in descendants(self.pid) if self.pid else ():
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kib += int(text.partition("\nPss:")[2].split()[0])
        return kib / 1024


def descendants(pid: int | None) -> Iterator[int]:
    if pid is None:
        return
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from descendants(int(child))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            wait_for(process, port, log)
            yield process
        finally:
            process.terminate()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"it does not start:\n{log.read_text()[-2000:]}")


# -- each of them ------------------------------------------------------------------------------------


@contextmanager
def upstream(directory: Path) -> Iterator[Side]:
    port = free_port()
    command = [sys.executable, str(HERE / "bench_upstream.py"), str(port)]
    with running(command, port, directory / "upstream.log"):
        yield Side("direct", port)


@contextmanager
def helexa(directory: Path, behind: int) -> Iterator[Side]:
    port, config = free_port(), directory / "helexa.toml"
    config.write_text(HELEXA.format(port=port, upstream=behind, directory=directory))
    config.chmod(0o600)
    command = [sys.executable, "-m", "helexa", "serve", "--config", str(config)]
    with running(command, port, directory / "helexa.log") as process:
        yield Side("helexa", port, process.pid)


@contextmanager
def nginx(directory: Path, behind: int) -> Iterator[Side]:
    port, config = free_port(), directory / "nginx.conf"
    config.write_text(NGINX.format(port=port, upstream=behind, directory=directory))
    command = [shutil.which("nginx") or "nginx", "-p", str(directory), "-c", str(config)]
    with running(command, port, directory / "nginx-out.log") as process:
        yield Side("nginx", port, process.pid)


@contextmanager
def litellm(directory: Path, behind: int, home: Path) -> Iterator[Side]:
    """From an environment of its own at `home`, which is made where it is missing."""
    command = home / "bin" / "litellm"
    if not command.exists():
        venv.create(home, with_pip=True)
        pip = [str(home / "bin" / "pip"), "install", "-q", "litellm[proxy]"]
        subprocess.run(pip, check=True)
    port, config = free_port(), directory / "litellm.yaml"
    config.write_text(LITELLM.format(upstream=behind))
    arguments = ["--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    with running([str(command), *arguments], port, directory / "litellm.log") as process:
        yield Side("litellm", port, process.pid)


def has_nginx() -> bool:
    return shutil.which("nginx") is not None


def body(chunks: int = 0, microseconds: int = 0) -> bytes:
    """A small request; with `chunks` it asks for a stream of so many."""
    asked: dict[str, object] = {
        "model": "bench",
        "messages": [{"role": "user", "content": "Say something about the sea."}],
        "max_tokens": chunks or 16,
    }
    if chunks:
        asked |= {"stream": True, "seed": microseconds}
        asked["stream_options"] = {"include_usage": True}
    return json.dumps(asked).encode()
