"""Words and columns for a terminal.  Pure; whatever is shown has its control characters escaped."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from helexa.escape import escape


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of aligned columns, those whose header begins with `>` to the right; None is a hyphen."""
    names = [header.removeprefix(">") for header in headers]
    cells = [names, *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = [
        f"{'>' if header.startswith('>') else '<'}{width}"
        for header, width in zip(headers, widths, strict=True)
    ]
    return [
        "  ".join(format(text, how) for text, how in zip(line, aligned, strict=True)).rstrip()
        for line in cells
    ]


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return escape(value) if isinstance(value, str) else f"{value}"


def bar(part: float, whole: float, width: int = 20, *, plain: bool = False) -> str:
    """How full something is."""
    filled = round(width * min(1.0, max(0.0, part / whole))) if whole > 0 else 0
    full, empty = ("#", ".") if plain else ("█", "░")
    return full * filled + empty * (width - filled)


def gigabytes(mb: float) -> str:
    """MiB as GiB, named GB as everybody does."""
    return f"{mb / 1024:.1f} GB"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 12 min`, `2 d 4 h`."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def seconds(value: float | None) -> str | None:
    """A short time, with as many digits as mean something."""
    if value is None:
        return None
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def clock(when: float | str) -> str:
    """Unix time, or a time as log lines have it, on this machine's clock."""
    unix_time = datetime.fromisoformat(when).timestamp() if isinstance(when, str) else when
    return time.strftime("%H:%M:%S", time.localtime(unix_time))


def memory(device: Mapping[str, Any], *, plain: bool) -> str | None:
    """A bar and figures; what other programs hold is named."""
    used, total = device.get("vram_used_mb"), device.get("vram_total_mb")
    if used is None or not total:
        return gigabytes(total) if total else None
    text = f"{bar(used, total, plain=plain)} {gigabytes(used)} of {gigabytes(total)}"
    if foreign := device.get("foreign_mb"):
        text += f" ({gigabytes(foreign)} by other programs)"
    return text
