"""The child process that prepares one model: `python -m helexa.store.prepare ORDER`, run by `child`.

ORDER is a JSON object: {"do": "convert", "gguf": PATH, "weights": BOOL},
{"do": "check", "directory": PATH} or {"do": "tokenizer", "directory": PATH}.
The last line written to standard output is {"ok": true} or {"error": SENTENCE}.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> int:
    be_killed_first()
    answer = carry_out(json.loads(arguments[0]))
    print(json.dumps(answer), flush=True)
    return 0


def be_killed_first() -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # not Linux, or not allowed: then the kernel's own judgement stands


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    try:
        from helexa.engine import convert

        match order["do"]:
            case "convert":
                convert.convert_gguf(Path(order["gguf"]), order["weights"])
            case "check":
                convert.check_config(Path(order["directory"]))
            case "tokenizer":
                convert.make_fast_tokenizer(Path(order["directory"]))
    except ImportError as error:
        return {
            "error": "Preparing a model needs what the node extra installs "
            f"(pip install 'helexa[node]'): {in_one_line(error)}."
        }
    except MemoryError:
        return {"error": "Preparing the model needs more memory than there is."}
    except Exception as error:
        return {"error": f"Preparing the model failed: {in_one_line(error)}."}
    return {"ok": True}


def in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:400].rstrip(".")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
