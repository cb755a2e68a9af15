"""A MIME tree rendered twice: as RFC 5322 bytes and as the Gmail API's message payload."""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.header import Header as EncodedWords
from typing import Any, NamedTuple

_LINE_CHARS = 76
_BASE64_LINE_BYTES = _LINE_CHARS * 3 // 4


class Header(NamedTuple):
    """One header: as the API shows it (unfolded, decoded) and as it stands in the message."""

    name: str
    value: str
    wire: str


def plain_header(name: str, value: str) -> Header:
    """Return a header whose value needs neither folding nor encoding."""
    return Header(name, value, value)


def folded_header(name: str, lines: list[str], indent: str = "\t") -> Header:
    """Return a header folded over several lines; the API only takes the line breaks out."""
    return Header(name, indent.join(lines), f"\r\n{indent}".join(lines))


def encoded_header(name: str, text: str, address: str = "", charset: str = "utf-8") -> Header:
    """Return a header whose `text` is sent as encoded-words (RFC 2047), before any address."""
    words = EncodedWords(text, charset, header_name=name).encode(linesep="\r\n")
    suffix = f" <{address}>" if address else ""
    return Header(name, text + suffix, words + suffix)


@dataclass(slots=True)
class Part:
    """One node of a MIME tree.

    `body` holds the content's bytes before transfer encoding. `text` is set where the API shows
    something else than those bytes: Gmail converts text parts to UTF-8 and leaves the declared
    charset in the header. `is_attached` parts are shown by attachment id and size only.
    """

    mime_type: str
    headers: list[Header]
    body: bytes = b""
    text: bytes | None = None
    encoding: str = "7bit"
    filename: str = ""
    is_attached: bool = False
    boundary: str = ""
    parts: list["Part"] = field(default_factory=list)

    def content(self) -> bytes:
        """Return the bytes the API shows for this part."""
        return self.body if self.text is None else self.text


def base64url(data: bytes) -> str:
    """Return padded base64url text, the form of every binary field of the Gmail API."""
    return base64.urlsafe_b64encode(data).decode()


def walk(part: Part, part_id: str = "") -> Iterator[tuple[str, Part]]:
    """Yield every part with its part id: "" for the message, "0", "1", "1.0" ... below it."""
    yield part_id, part
    for number, child in enumerate(part.parts):
        yield from walk(child, f"{part_id}.{number}" if part_id else str(number))


def render_bytes(part: Part) -> bytes:
    """Return the part as it travels: headers, empty line, encoded body; CRLF line ends."""
    lines = [f"{header.name}: {header.wire}\r\n" for header in part.headers]
    return "".join(lines).encode() + b"\r\n" + _render_body(part)


def _render_body(part: Part) -> bytes:
    if part.boundary:
        mark = b"--" + part.boundary.encode()
        children = [mark + b"\r\n" + render_bytes(child) + b"\r\n" for child in part.parts]
        return b"".join(children) + mark + b"--\r\n"
    if part.encoding == "base64":
        return _base64_lines(part.body)
    if part.encoding == "quoted-printable":
        return binascii.b2a_qp(part.body, istext=True)
    return part.body


def _base64_lines(data: bytes) -> bytes:
    steps = range(0, len(data), _BASE64_LINE_BYTES)
    lines = [binascii.b2a_base64(data[at : at + _BASE64_LINE_BYTES], newline=False) for at in steps]
    return b"\r\n".join(lines) + b"\r\n"


def render_payload(part: Part, attachment_id: Callable[[str], str]) -> dict[str, Any]:
    """Return the part as a MessagePart of the API; `attachment_id` maps a part id to an id.

    Source: Gmail API v1, users.messages, MessagePart.
    """
    return _render_part(part, "", attachment_id)


def _render_part(part: Part, part_id: str, attachment_id: Callable[[str], str]) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "partId": part_id,
        "mimeType": part.mime_type,
        "filename": part.filename,
        "headers": render_headers(part),
        "body": _render_content(part, part_id, attachment_id),
    }
    if part.parts:
        prefix = f"{part_id}." if part_id else ""
        rendered["parts"] = [
            _render_part(child, f"{prefix}{number}", attachment_id)
            for number, child in enumerate(part.parts)
        ]
    return rendered


def render_headers(part: Part) -> list[dict[str, str]]:
    """Return the part's headers in order, repeated ones included, as the API lists them."""
    return [{"name": header.name, "value": header.value} for header in part.headers]


def _render_content(
    part: Part, part_id: str, attachment_id: Callable[[str], str]
) -> dict[str, Any]:
    if part.is_attached:
        return {"attachmentId": attachment_id(part_id), "size": len(part.body)}
    content = part.content()
    if part.boundary or not content:
        return {"size": 0}
    return {"size": len(content), "data": base64url(content)}
