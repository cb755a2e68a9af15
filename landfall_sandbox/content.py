"""What a generated message says: sender, subject and MIME tree, from (seed, index) alone."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from html import escape

from landfall_sandbox import attachments
from landfall_sandbox.ids import Identifiers
from landfall_sandbox.layout import Layout
from landfall_sandbox.mime import Header, Part, encoded_header, folded_header, plain_header
from landfall_sandbox.texts import (
    AWKWARD_SUBJECTS,
    CYRILLIC_TEXT,
    EMOJI_TEXT,
    JAPANESE_TEXT,
    LATIN_TEXT,
    OWNER,
    OWNER_ADDRESS,
    RTL_TEXT,
    Dice,
    Person,
    Phrasebook,
)

_KINDS = (
    ("alternative",) * 50
    + ("plain",) * 16
    + ("html",) * 10
    + ("pdf",) * 5
    + ("image",) * 3
    + ("table",) * 3
    + ("several", "several", "forward", "forward", "empty", "empty")
    + ("iso-8859-1", "iso-8859-1", "windows-1251", "shift_jis", "x-unknown-7", "rtl", "emoji")
)
_TRAITS = (
    ("",) * 69
    + ("awkward subject",) * 8
    + ("folded subject", "long subject", "encoded subject", "encoded sender") * 2
    + ("no subject", "no date", "no message id") * 2
    + ("tags",) * 6
)
_ATTACHING_KINDS = frozenset(("pdf", "table", "several", "forward"))
_BIG_EVERY = 200
_BIG_BYTES = 1_000_000
_ODD_TEXTS = {
    "iso-8859-1": LATIN_TEXT,
    "windows-1251": CYRILLIC_TEXT,
    "shift_jis": JAPANESE_TEXT,
    "rtl": RTL_TEXT,
    "emoji": EMOJI_TEXT,
}
_MESSAGE_ID = re.compile(r"<?m([0-9a-f]{16})@mail\.example\.com>?")


@dataclass(slots=True)
class Envelope:
    """The part of a message that a search looks at first; cheap to generate."""

    index: int
    kind: str
    trait: str
    sender: Person
    recipient: Person
    subject: str
    message_id: str
    has_attachment: bool
    dice: Dice


class Composer:
    """Generates the content of every message of one mailbox."""

    def __init__(self, seed: int, layout: Layout, identifiers: Identifiers) -> None:
        """Prepare the tables of kinds; `layout` and `identifiers` are those of the mailbox."""
        self._seed = seed
        self._layout = layout
        self._identifiers = identifiers
        self._phrases = Phrasebook()
        dice = Dice(seed * 2)
        self._kinds = dice.shuffled(_KINDS)
        self._traits = dice.shuffled(_TRAITS)

    def envelope(self, index: int) -> Envelope:
        """Return sender, recipient, subject and kind of message `index`."""
        dice = Dice((self._seed << 48) + index)
        kind = self._kinds[index % len(self._kinds)]
        if index % _BIG_EVERY == self._seed % _BIG_EVERY:
            kind = "big"
        trait = self._traits[index % len(self._traits)]
        other = dice.pick(self._phrases.people)
        labels = self._layout.labels(index)
        outgoing = "SENT" in labels or "DRAFT" in labels
        return Envelope(
            index=index,
            kind=kind,
            trait=trait,
            sender=OWNER if outgoing else other,
            recipient=other if outgoing else OWNER,
            subject=self._subject(index, kind, trait),
            message_id="" if trait == "no message id" else self.message_id(index),
            has_attachment=kind in _ATTACHING_KINDS,
            dice=dice,
        )

    def message_id(self, index: int) -> str:
        """Return the Message-ID header of message `index`; it embeds the Gmail id."""
        return f"<m{self._identifiers.message_id(index)}@mail.example.com>"

    def index_of_message_id(self, message_id: str) -> int | None:
        """Return the index a Message-ID header belongs to, or None."""
        match = _MESSAGE_ID.fullmatch(message_id)
        return self._identifiers.message_index(match[1]) if match else None

    def _subject(self, index: int, kind: str, trait: str) -> str:
        root = self._layout.thread_root(index)
        subject = self._phrases.subjects[(root * 7919 + self._seed) % len(self._phrases.subjects)]
        number = index // len(self._traits)
        if trait == "no subject":
            return ""
        if trait == "awkward subject":
            return AWKWARD_SUBJECTS[(index + number) % len(AWKWARD_SUBJECTS)]
        if trait == "encoded subject":
            return (EMOJI_TEXT, RTL_TEXT, JAPANESE_TEXT, CYRILLIC_TEXT)[number % 4]
        if trait == "folded subject":
            return f"{subject} \u2013 and a second line: {subject.lower()}".replace("\u2013", "-")
        if trait == "long subject":
            return " ".join([subject] * 60)
        if kind == "emoji":
            return EMOJI_TEXT
        return subject if root == index else f"Re: {subject}"

    def text(self, envelope: Envelope) -> str:
        """Return the words of the message, without markup; the snippet and search use them."""
        sentences, dice = self._phrases.sentences, envelope.dice
        if envelope.kind == "empty":
            return ""
        lines = [dice.pick(sentences) for _ in range(6 + dice.below(10))]
        if envelope.kind in _ODD_TEXTS:
            lines.insert(0, _ODD_TEXTS[envelope.kind])
        text = "\r\n".join(lines) + "\r\n"
        if envelope.kind == "big":
            text *= _BIG_BYTES // len(text) + 1
        return f"{text}\r\n-- \r\n{envelope.sender.name}\r\n"

    def compose(self, envelope: Envelope, text: str) -> Part:
        """Return the MIME tree of a message from its envelope and the text drawn for it."""
        part = self._body(envelope, text)
        part.headers = self._headers(envelope) + part.headers
        return part

    def _body(self, envelope: Envelope, text: str) -> Part:
        kind, dice = envelope.kind, envelope.dice
        if kind in ("plain", "big", "empty"):
            return _text_part("plain", text, "us-ascii")
        if kind == "html":
            return _text_part("html", _as_html(envelope, text), "utf-8", "quoted-printable")
        if kind in ("iso-8859-1", "windows-1251", "shift_jis"):
            encoding = "quoted-printable" if kind == "iso-8859-1" else "base64"
            return _text_part("plain", text, kind, encoding)
        if kind == "x-unknown-7":
            return _unknown_charset_part(text)
        if kind in ("rtl", "emoji"):
            return _alternative(envelope, text, "base64")
        if kind == "forward":
            forwarded = self._forwarded(envelope, text)
            return _multipart("mixed", dice, [_text_part("plain", text, "us-ascii"), forwarded])
        extra = attachments.parts_for(kind, dice)
        first = _alternative(envelope, text, "quoted-printable")
        if not extra:
            return first
        return _multipart("related" if kind == "image" else "mixed", dice, [first, *extra])

    def _forwarded(self, envelope: Envelope, text: str) -> Part:
        nested = _text_part("plain", text.upper(), "us-ascii")
        author = envelope.dice.pick(self._phrases.people)
        nested.headers = [
            plain_header("From", str(author)),
            plain_header("To", str(envelope.sender)),
            plain_header("Subject", f"Original: {envelope.kind}"),
            plain_header("MIME-Version", "1.0"),
            *nested.headers,
        ]
        return attachments.message_part(nested)

    def _headers(self, envelope: Envelope) -> list[Header]:
        index, trait, dice = envelope.index, envelope.trait, envelope.dice
        moment = datetime.fromtimestamp(self._layout.date_ms(index) // 1000, UTC)
        date = format_datetime(moment)
        headers = [plain_header("Delivered-To", OWNER_ADDRESS)]
        if envelope.sender is not OWNER:
            headers += _transport_headers(envelope, date)
        headers.append(plain_header("MIME-Version", "1.0"))
        if trait != "no date":
            headers.append(plain_header("Date", date))
        if envelope.message_id:
            headers.append(plain_header("Message-ID", envelope.message_id))
        headers += self._reply_headers(index)
        if trait == "tags":
            headers += [plain_header("X-Tag", f"first-{dice.below(9)}"), plain_header("X-Tag", "2")]
        headers += _subject_headers(envelope)
        headers.append(_sender_header(envelope))
        headers.append(plain_header("To", str(envelope.recipient)))
        return headers

    def _reply_headers(self, index: int) -> list[Header]:
        thread = self._layout.thread(index)
        earlier = [self.message_id(member) for member in thread if member < index]
        if not earlier:
            return []
        return [
            plain_header("In-Reply-To", earlier[-1]),
            folded_header("References", earlier, indent=" "),
        ]


def _transport_headers(envelope: Envelope, date: str) -> list[Header]:
    dice, domain = envelope.dice, envelope.sender.address.partition("@")[2]
    token, queue = dice.octets(24).hex(), dice.octets(6).hex()
    return [
        folded_header(
            "Received", [f"by 2001:db8:{queue[:4]}:: with SMTP id {queue};", f"       {date}"]
        ),
        plain_header("Return-Path", f"<{envelope.sender.address}>"),
        folded_header(
            "Received",
            [
                f"from mx.{domain} (mx.{domain}. [192.0.2.{dice.below(250)}])",
                f"by inbound.example.com with ESMTPS id {token[:20]}",
                f"for <{OWNER_ADDRESS}>; {date}",
            ],
            indent="        ",
        ),
        folded_header(
            "DKIM-Signature",
            [
                f"v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s=s2026;",
                "h=to:subject:message-id:date:from:mime-version;",
                f"bh={token[:40]}=;",
                f"b={token}{queue}{token[::-1]}",
            ],
        ),
        plain_header("Authentication-Results", f"inbound.example.com; dkim=pass header.d={domain}"),
    ]


def _subject_headers(envelope: Envelope) -> list[Header]:
    subject, trait = envelope.subject, envelope.trait
    if trait == "no subject":
        return []
    if not subject.isascii():
        return [encoded_header("Subject", subject)]
    if trait == "folded subject":
        first, second = subject.split(" - ")
        return [Header("Subject", subject, f"{first} -\r\n {second}")]
    return [plain_header("Subject", subject)]


def _sender_header(envelope: Envelope) -> Header:
    if envelope.trait == "encoded sender":
        address = envelope.sender.address
        return encoded_header("From", LATIN_TEXT.split(",")[0], address, "iso-8859-1")
    return plain_header("From", str(envelope.sender))


def _text_part(subtype: str, text: str, charset: str, encoding: str = "7bit") -> Part:
    return Part(
        mime_type=f"text/{subtype}",
        headers=[
            plain_header("Content-Type", f'text/{subtype}; charset="{charset}"'),
            plain_header("Content-Transfer-Encoding", encoding),
        ],
        body=text.encode(charset, "replace"),
        text=text.encode(),
        encoding=encoding,
    )


def _unknown_charset_part(text: str) -> Part:
    """Return a part nobody can decode: Gmail has nothing to convert and passes the bytes on."""
    part = _text_part("plain", "", "utf-8", "base64")
    part.headers[0] = plain_header("Content-Type", 'text/plain; charset="x-unknown-7"')
    part.body, part.text = b"\xff\xfe\x80 " + text.encode(), None
    return part


def _alternative(envelope: Envelope, text: str, encoding: str) -> Part:
    plain_charset = "us-ascii" if text.isascii() else "utf-8"
    plain_encoding = "7bit" if text.isascii() else "base64"
    html = _as_html(envelope, text)
    return _multipart(
        "alternative",
        envelope.dice,
        [
            _text_part("plain", text, plain_charset, plain_encoding),
            _text_part("html", html, "utf-8", encoding),
        ],
    )


def _multipart(subtype: str, dice: Dice, parts: list[Part]) -> Part:
    boundary = f"000000000000{dice.octets(8).hex()}"
    header = plain_header("Content-Type", f'multipart/{subtype}; boundary="{boundary}"')
    return Part(f"multipart/{subtype}", [header], boundary=boundary, parts=parts)


def _as_html(envelope: Envelope, text: str) -> str:
    paragraphs = "</p>\r\n<p>".join(escape(text).split("\r\n"))
    link = f"https://www.example.com/read?m={envelope.index}&amp;via=mail"
    return (
        f'<html><body dir="auto"><p>{paragraphs}</p>\r\n'
        f'<a href="{link}">Open in the browser</a></body></html>\r\n'
    )
