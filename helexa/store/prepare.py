"""The child process that prepares one model: `python -m helexa.store.prepare ORDER`, run by `child`.

ORDER is a JSON object with the key `memory`, the bytes that it may allocate, and one of

- {"do": "convert", "gguf": PATH, "weights": BOOL}: see `helexa.engine.convert`;
- {"do": "check", "directory": PATH}: judge and complete the config.json there;
- {"do": "tokenizer", "directory": PATH}: make the tokenizer.json that is missing there.

The last line written to standard output is {"ok": true} or {"error": SENTENCE}.
"""

import ctypes
import errno
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from helexa.store.child import PR_SET_PDEATHSIG
from helexa.store.failures import plain


def main(arguments: list[str]) -> int:
    order = json.loads(arguments[0])
    die_with_parent()
    be_killed_first()
    resource.setrlimit(resource.RLIMIT_DATA, (order["memory"], order["memory"]))
    print(json.dumps(answer(order)), flush=True)
    return 0


def die_with_parent() -> None:
    """So that no orphan writes where the next add of this model writes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def be_killed_first() -> None:
    """Have the kernel choose this process, not the daemon, when memory runs out."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # not Linux, or not allowed: then the kernel's own judgement stands


def answer(order: dict[str, Any]) -> dict[str, Any]:
    try:
        carry_out(order)
    except ImportError as error:
        return {
            "error": "Preparing a model needs what the node extra installs "
            f"(pip install 'helexa[node]'): {plain(str(error))}."
        }
    except MemoryError:
        return {"error": "Preparing the model needs more memory than it may have."}
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return {"error": "The disk is full: preparing the model needs more space."}
        reason = plain(str(error)) or type(error).__name__
        return {"error": f"The model cannot be prepared: {reason}."}
    return {"ok": True}


def carry_out(order: dict[str, Any]) -> None:
    from helexa.engine import convert  # torch: in this process alone

    match order["do"]:
        case "convert":
            convert.convert_gguf(Path(order["gguf"]), order["weights"])
        case "check":
            convert.check_config(Path(order["directory"]))
        case "tokenizer":
            convert.make_fast_tokenizer(Path(order["directory"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
