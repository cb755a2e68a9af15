"""Attachment parts of the generated mail: small stand-ins for PDF, PNG, CSV and nested mail."""

from landfall_sandbox.mime import Part, plain_header, render_bytes
from landfall_sandbox.texts import Dice


def parts_for(kind: str, dice: Dice) -> list[Part]:
    """Return the attachments of a message of this kind; none for most kinds."""
    if kind == "pdf":
        return [_pdf(dice)]
    if kind == "image":
        return [_image(dice)]
    if kind == "table":
        return [_table(dice)]
    if kind == "several":
        return [_pdf(dice), _table(dice), _image(dice)]
    return []


def message_part(nested: Part) -> Part:
    """Return an attached message/rfc822 part; the API shows the nested message below it."""
    part = _attachment("message/rfc822", "forwarded.eml", render_bytes(nested), "7bit")
    part.parts = [nested]
    return part


def _pdf(dice: Dice) -> Part:
    content = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + dice.octets(400 + dice.below(2000)) + b"\n%%EOF\n"
    return _attachment("application/pdf", f"invoice-{dice.below(9000) + 1000}.pdf", content)


def _table(dice: Dice) -> Part:
    rows = [f'{number},"item, {dice.below(99)}",{dice.below(9999)}' for number in range(40)]
    content = "\r\n".join(["line,item,cents", *rows, ""]).encode()
    return _attachment("text/csv", "export.csv", content)


def _image(dice: Dice) -> Part:
    content = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + dice.octets(300 + dice.below(900))
    part = _attachment("image/png", "image001.png", content)
    part.headers += [
        plain_header("Content-ID", "<image001@example.com>"),
        plain_header("X-Attachment-Id", "image001"),
    ]
    return part


def _attachment(mime_type: str, filename: str, content: bytes, encoding: str = "base64") -> Part:
    return Part(
        mime_type=mime_type,
        headers=[
            plain_header("Content-Type", f'{mime_type}; name="{filename}"'),
            plain_header("Content-Disposition", f'attachment; filename="{filename}"'),
            plain_header("Content-Transfer-Encoding", encoding),
        ],
        body=content,
        encoding=encoding,
        filename=filename,
        is_attached=True,
    )
