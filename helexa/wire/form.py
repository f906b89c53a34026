"""Forms of several parts (multipart/form-data): read whole, written anew with a field replaced."""

import secrets
from collections.abc import Iterator

from attrs import evolve, frozen
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from helexa.errors import InvalidRequest

MAX_PARTS = 64
MAX_FIELD_BYTES = 1024 * 1024
TYPE = "multipart/form-data"


@frozen
class Part:
    """`filename` is None for a field that is no file."""

    name: str
    data: bytes
    filename: str | None = None
    content_type: str = ""


@frozen
class Form:
    parts: tuple[Part, ...]

    def field(self, name: str) -> str:
        """The value of a field; "" if it is not there.  InvalidRequest if it is there twice."""
        found = [part for part in self.parts if part.name == name and part.filename is None]
        if len(found) > 1:
            raise InvalidRequest(f"`{name}` must not come more than once.", param=name)
        return found[0].data.decode("utf-8", "replace") if found else ""

    @property
    def num_words_bytes(self) -> int:
        """The bytes of all that is no file."""
        return sum(len(part.data) for part in self.parts if part.filename is None)

    def with_field(self, name: str, value: str) -> "Form":
        return Form(
            tuple(
                evolve(part, data=value.encode()) if part.name == name else part
                for part in self.parts
            )
        )

    def write(self) -> tuple[str, bytes]:
        """Its content type and its bytes; their boundary is random, so no part can hold it."""
        boundary = secrets.token_hex(16)
        lines = [line for part in self.parts for line in write_part(part, boundary)]
        body = b"".join([*lines, f"--{boundary}--\r\n".encode()])
        return f"{TYPE}; boundary={boundary}", body


def is_form(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == TYPE


def read_form(content_type: str, body: bytes) -> Form:
    """InvalidRequest for a body that is no such form."""
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    if not boundary:
        raise InvalidRequest("The Content-Type of a form must name its boundary.")
    decoder = MultipartDecoder(boundary.encode(), MAX_FIELD_BYTES, max_parts=MAX_PARTS)
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        return Form(tuple(read_parts(decoder)))
    except (ValueError, RequestEntityTooLarge) as error:
        raise InvalidRequest(f"The body is no form that can be read: {error}") from None


def read_parts(decoder: MultipartDecoder) -> Iterator[Part]:
    part, data = None, list[bytes]()
    while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
        if isinstance(event, Field | File):
            part, data = begin(event), []
        elif isinstance(event, Data) and part is not None:
            data.append(event.data)
            if not event.more_data:
                yield evolve(part, data=b"".join(data))


def begin(event: Event) -> Part:
    assert isinstance(event, Field | File)
    filename = event.filename if isinstance(event, File) else None
    return Part(event.name, b"", filename, event.headers.get("content-type", ""))


def write_part(part: Part, boundary: str) -> Iterator[bytes]:
    said = f'form-data; name="{quoted(part.name)}"'
    if part.filename is not None:
        said += f'; filename="{quoted(part.filename)}"'
    yield f"--{boundary}\r\nContent-Disposition: {said}\r\n".encode()
    if part.content_type:
        yield f"Content-Type: {plain(part.content_type)}\r\n".encode()
    yield b"\r\n"
    yield part.data
    yield b"\r\n"


def quoted(text: str) -> str:
    return plain(text).replace('"', "%22")


def plain(text: str) -> str:
    """Without what would end a line."""
    return "".join(each for each in text if each.isprintable())
