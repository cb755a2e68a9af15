"""Mail that was put in as bytes: the MIME tree that the Gmail API shows of it.

Nothing is refused: what is defective is shown as far as the `email` package reads it. Where
Google's reference is silent the choices are these. Header values have their line breaks taken
out and nothing else (so the blanks of a folded line stay), and encoded-words (RFC 2047) decoded;
a word that does not decode stays as it is. Bytes above ASCII in a header are UTF-8, or Latin-1
where they are not. Text parts are shown in UTF-8; where their charset is unknown or does not fit,
as they are. A part is an attachment when it is named or declared to be one, or is no text.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.generator import BytesGenerator
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import Compat32
from email.utils import parseaddr
from html import unescape
from io import BytesIO

from landfall_sandbox.mime import Header, Part, walk
from landfall_sandbox.texts import Person

MAX_DEPTH = 50
"""Deepest part that is shown; what lies below is left out."""

_NESTED = ("message/rfc822", "message/global")
_WORD = re.compile(r"=\?([^?\s*]+)(?:\*[^?\s]*)?\?([bBqQ])\?([^?\s]*)\?=")
_WORDS = re.compile(rf"{_WORD.pattern}(?:[ \t]+{_WORD.pattern})*")
_SEARCHED_BYTES = 100_000
_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class _Verbatim(Compat32):
    """Keeps each header's source, so that an attached message is written as it came."""

    verify_generated_headers = False

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, _, source = "".join(sourcelines).partition(":")
        return name, source

    def header_fetch_parse(self, name: str, value: str) -> str:
        return _unfolded(value)

    def fold(self, name: str, value: str) -> str:
        return f"{name}:{value}"

    def fold_binary(self, name: str, value: str) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


def parse_mail(raw: bytes) -> Part:
    """Return the MIME tree of a message; never fails."""
    line_end = "\r\n" if b"\r\n" in raw else "\n"
    try:
        return _part(message_from_bytes(raw, policy=_Verbatim(linesep=line_end)), 0)
    except Exception:
        message = BytesHeaderParser(policy=_Verbatim()).parsebytes(raw)
        return Part("text/plain", _headers(message), _undecoded(message))


def header_of(part: Part, name: str) -> str:
    """Return the first header of a name, or ""."""
    wanted = name.lower()
    return next((header.value for header in part.headers if header.name.lower() == wanted), "")


def person_of(part: Part, name: str) -> Person:
    """Return who an address header names first."""
    return Person(*parseaddr(header_of(part, name)))


def words_of(part: Part) -> str:
    """Return the first text of a message, plain if there is one, without markup."""
    texts: dict[str, bytes] = {}
    for _, child in walk(part):
        if child.mime_type.startswith("text/") and not child.is_attached:
            texts.setdefault(child.mime_type, child.content())
    if "text/plain" in texts or "text/html" not in texts:
        return texts.get("text/plain", b"").decode(errors="replace")
    html = texts["text/html"][:_SEARCHED_BYTES]
    return unescape(_MARKUP.sub(" ", html.decode(errors="replace")))


def _part(message: Message, depth: int) -> Part:
    mime_type = _readable(message.get_content_type())
    part = Part(
        mime_type=mime_type,
        headers=_headers(message),
        filename=_filename(message),
    )
    children = message.get_payload() if message.is_multipart() else []
    assert isinstance(children, list)
    if mime_type.startswith("multipart/") and message.is_multipart():
        part.boundary = message.get_boundary("") or "-"
    else:
        _fill(part, message)
    if (part.boundary or mime_type in _NESTED) and depth < MAX_DEPTH:
        part.parts = [_part(child, depth + 1) for child in children if isinstance(child, Message)]
    return part


def _fill(part: Part, message: Message) -> None:
    """Give a part that is no multipart its content."""
    part.body = _written(message) if message.is_multipart() else _decoded(message)
    is_text = part.mime_type.startswith(("text/", "multipart/"))
    is_declared = message.get_content_disposition() == "attachment"
    part.is_attached = bool(part.filename) or is_declared or not is_text
    if not part.is_attached:
        part.text = _in_utf8(part.body, message)


def _written(message: Message) -> bytes:
    """Return the content of a message/* part, which the parser has taken apart."""
    children = message.get_payload()
    assert isinstance(children, list)
    output = BytesIO()
    try:
        for child in children:
            BytesGenerator(output, mangle_from_=False, maxheaderlen=0).flatten(child)
    except Exception:
        return b""
    return output.getvalue()


def _decoded(message: Message) -> bytes:
    try:
        content = message.get_payload(decode=True)
    except Exception:
        content = _undecoded(message)
    return content if isinstance(content, bytes) else b""


def _undecoded(message: Message) -> bytes:
    return str(message.get_payload()).encode("utf-8", "surrogateescape")


def _in_utf8(content: bytes, message: Message) -> bytes:
    try:
        charset = message.get_content_charset() or "us-ascii"
        return content.decode(charset).encode()
    except Exception:
        return content


def _filename(message: Message) -> str:
    try:
        return _shown(message.get_filename() or "")
    except Exception:
        return ""


def _headers(message: Message) -> list[Header]:
    items = [(name, _unfolded(source)) for name, source in message.raw_items()]
    return [Header(_readable(name), _shown(value), value) for name, value in items]


def _unfolded(source: str) -> str:
    return re.sub(r"[\r\n]", "", source).lstrip(" \t")


def _shown(value: str) -> str:
    return _WORDS.sub(lambda match: _decode_words(match[0]), _readable(value))


def _readable(text: str) -> str:
    """Return text whose bytes above ASCII the parser has hidden in surrogates."""
    if text.isascii():
        return text
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _decode_words(words: str) -> str:
    """Decode a run of encoded-words; blanks between them separate nothing."""
    try:
        return "".join(data.decode(charset) for charset, data in _joined(words))
    except (ValueError, LookupError):
        return words


def _joined(words: str) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of a run charset by charset: senders split characters between words."""
    charset, data = "", b""
    for word in _WORD.finditer(words):
        if word[1].lower() != charset:
            yield charset or "ascii", data
            charset, data = word[1].lower(), b""
        data += _word_bytes(word[2].lower(), word[3].encode())
    yield charset, data


def _word_bytes(encoding: str, content: bytes) -> bytes:
    if encoding == "q":
        return binascii.a2b_qp(content, header=True)
    return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
