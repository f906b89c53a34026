"""The child process: its work, its death, its limits, and what the daemon keeps away from it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from store_toys import write_gguf
from transformers import PreTrainedModel

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store import Store, child, prepare
from helexa.store.child import environment, read_answer, run_child


def test_a_model_is_prepared_in_a_child_and_torch_stays_there(small_gguf: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path\n"
        "from helexa.config.schema import Store as Settings\n"
        "from helexa.store import Store\n"
        "store = Store(Settings(min_free_gb=0), Path(sys.argv[1]))\n"
        "model = store.add(sys.argv[2])\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'huggingface_hub', 'gguf', 'numpy'}\n"
        "print(json.dumps([model.weights, sorted(heavy & sys.modules.keys())]))\n"
    )
    root = small_gguf.parent / "store"
    command = [sys.executable, "-c", code, str(root), f"gguf:{small_gguf}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["safetensors", []]
    (model,) = Store(Settings(), root).list()
    for path in model.path.iterdir():
        if path.suffix != ".gguf":
            assert path.stat().st_mode & 0o077 == 0, path


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the child be `code` instead of the real preparation."""
    command = [sys.executable, "-c", code]
    original = subprocess.Popen
    monkeypatch.setattr(
        child.subprocess, "Popen", lambda _, **options: original(command, **options)
    )


def test_a_child_that_is_killed_is_one_sentence_and_leaves_nothing(
    small_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    store = Store(Settings(min_free_gb=0), tmp_path / "store")
    with pytest.raises(StoreError, match="was killed, most likely because memory ran out"):
        store.add(f"gguf:{small_gguf}")
    assert store.list() == []
    assert list((tmp_path / "store" / "partial").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os.abort()", "ended with code -6"),
        ("raise SystemExit(3)", "ended with code 3"),
        ("print('no JSON')", "ended with code 0"),
        ("print('{}')", "ended with code 0"),
        ("print('noise'); print('{\"error\": \"A sentence.\"}')", "^A sentence\\.$"),
    ],
)
def test_however_a_child_ends_it_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    pretend(monkeypatch, code)
    with pytest.raises(StoreError, match=told):
        run_child({})


def test_noise_before_the_answer_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "print('x' * 10**6); print('{\"ok\": true}')")
    run_child({})


def test_a_child_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "TIMEOUT_SECONDS", 0.2)
    pretend(monkeypatch, "import signal; signal.pause()")
    with pytest.raises(StoreError, match="took over an hour"):
        run_child({})


def test_a_stop_ends_the_child_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-c", "import signal; signal.pause()"]

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, _: object, **options: Any) -> None:
            super().__init__(command, **options)
            started.append(self)

        def communicate(self, *_: object, **__: object) -> tuple[bytes, bytes]:
            raise KeyboardInterrupt

    monkeypatch.setattr(child.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_child({})
    assert started[0].returncode == -9


def test_a_child_sees_no_token_no_gpu_and_no_network_through_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "OPENAI_API_KEY", "HELEXA_NODE__TOKEN", "LD_PRELOAD"):
        monkeypatch.setenv(name, "x")
    given = environment()
    assert "x" not in given.values()
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["CUDA_VISIBLE_DEVICES"] == ""


LIMITED = """
import json, sys
from helexa.store import prepare
def hungry(order): bytearray(1 << 30)
prepare.carry_out = hungry
sys.exit(prepare.main([json.dumps({"memory": 200 << 20})]))
"""


def test_a_child_cannot_take_more_memory_than_it_was_given() -> None:
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, check=False)
    with pytest.raises(StoreError, match="needs more memory than it may have"):
        read_answer(done.stdout, done.returncode)


ORPHAN = """
import os, subprocess, sys
code = "from helexa.store.prepare import *; die_with_parent(); print(os.getpid(), flush=True); signal.pause()"
subprocess.Popen([sys.executable, "-c", "import os\\n" + code])
sys.stdin.read()
"""


def test_a_child_dies_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) > 0
        parent.kill()
        assert (
            parent.stdout.read() == b""
        )  # the pipe closes when its last holder, the child, is gone


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "needs more memory"),
        (ImportError("No module named 'torch'"), r"pip install 'helexa\[node\]'"),
        (OSError(28, "No space left on device"), "The disk is full"),
        (ValueError("two\nlines \x1b[31m"), r"cannot be prepared: two lines \?\[31m\.$"),
        (KeyError(), "cannot be prepared: KeyError"),
    ],
)
def test_whatever_goes_wrong_in_the_child_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(order: object) -> None:
        raise error

    monkeypatch.setattr(prepare, "carry_out", fail)
    answer = json.dumps(prepare.answer({})).encode()
    with pytest.raises(StoreError, match=told):
        read_answer(answer, 0)


def test_a_hostile_gguf_can_only_hurt_the_child(
    llama: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "x.gguf", llama, numbers={"llama.embedding_length": 2**31})
    store = Store(Settings(min_free_gb=0), tmp_path / "store")
    with pytest.raises(StoreError, match=r"cannot be prepared|memory"):
        store.add(f"gguf:{path}")
    assert list((tmp_path / "store" / "partial").iterdir()) == []
