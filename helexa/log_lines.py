"""One log event as a value, and how it looks: to a person, to a program, to the journal.  Pure."""

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from helexa.escape import escape

Event: TypeAlias = dict[str, Any]  # time, level, logger, event, request_id?, then the fields

LONGEST_VALUE = 2000  # characters
FIXED = ("time", "level", "logger", "event", "request_id", "traceback")
SYSLOG = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def to_event(record: logging.LogRecord, request: str) -> Event:
    """A record of the standard library, ours or another package's, as one event."""
    event: Event = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": cut(record.getMessage()),
    }
    if request:
        event["request_id"] = request
    event |= {
        name if name not in FIXED else f"{name}_": plain(value)
        for name, value in getattr(record, "fields", {}).items()
    }
    if record.exc_info and record.exc_info[1] is not None:
        event["traceback"] = told(record.exc_info[1])
    return event


def plain(value: object) -> Any:
    """`value` as JSON can hold it."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return cut(str(value))


def told(error: BaseException) -> str:
    """The frames of a traceback and the error itself, cut where its message is long."""
    lines = traceback.TracebackException.from_exception(error, lookup_lines=True).format()
    return "".join(
        line if len(line) <= LONGEST_VALUE else cut(line) + "\n" for line in lines
    ).rstrip()


def cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


# -- how an event looks ------------------------------------------------------------------------------


def human(event: Event) -> str:
    """`12:03:44.512 warning node: model lost  model=x request=4f..`, and a traceback below it."""
    when = datetime.fromisoformat(event["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    logger = event["logger"].removeprefix("helexa.")
    fields = {name: value for name, value in event.items() if name not in FIXED}
    if "request_id" in event:
        fields["request"] = event["request_id"]
    shown = "".join(f"  {escape(name)}={shown_value(value)}" for name, value in fields.items())
    line = f"{when} {event['level']:<7} {escape(logger)}: {escape(event['event'])}{shown}"
    below = event.get("traceback", "").splitlines()
    return "\n".join([line, *(f"    {escape(frame)}" for frame in below)])


def shown_value(value: Any) -> str:
    if isinstance(value, str):
        safe = escape(value)
        return json.dumps(safe, ensure_ascii=False) if needs_quotes(safe) else safe
    return "-" if value is None else escape(json.dumps(value, ensure_ascii=False))


def needs_quotes(text: str) -> bool:
    return not text or any(character in text for character in ' ="')


def machine(event: Event) -> str:
    """One line of JSON; everything beyond ASCII is escaped."""
    return json.dumps(event)


def journal(event: Event) -> str:
    """A line of JSON behind its syslog priority, which the journal takes off again."""
    return f"<{SYSLOG.get(event['level'], 5)}>{machine(event)}"
