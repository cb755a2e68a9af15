"""Message ids, page tokens and attachment ids: reversible, so that nothing has to be stored."""

import base64
import binascii
import hashlib
import re
import secrets

_BITS = 60
_MASK = (1 << _BITS) - 1
_HALF = 30
_ODD = 0x9E3779B97F4A7C5
_ODD_INVERSE = pow(_ODD, -1, 1 << _BITS)
_MAX_INDEX = 1 << 40
_NONCE_BYTES = 9
_CHECK_BYTES = 8
_HEX_ID = re.compile(r"[0-9a-f]{1,16}")


class Permutation:
    """A bijection on 60-bit numbers, so that consecutive indexes look unrelated."""

    def __init__(self, seed: int, purpose: str) -> None:
        """Key the bijection by `seed` and `purpose`; another purpose gives unrelated numbers."""
        digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big") & _MASK

    def encode(self, index: int) -> int:
        """Return the number that stands for `index` (0 <= index < 2**60)."""
        number = ((index ^ self._key) * _ODD) & _MASK
        number ^= number >> _HALF
        number = (number * _ODD) & _MASK
        return number ^ (number >> _HALF)

    def decode(self, number: int) -> int | None:
        """Return the index that `number` stands for; None when no mailbox could hold it."""
        number ^= number >> _HALF
        number = (number * _ODD_INVERSE) & _MASK
        number ^= number >> _HALF
        index = ((number * _ODD_INVERSE) & _MASK) ^ self._key
        return index if index < _MAX_INDEX else None


class Identifiers:
    """The three kinds of opaque text a client hands back to the Gmail API."""

    def __init__(self, seed: int) -> None:
        """Derive all keys from the mailbox's `seed`."""
        self._messages = Permutation(seed, "message")
        self._pages = Permutation(seed, "page")
        self._attachment_key = hashlib.sha256(f"attachment:{seed}".encode()).digest()

    def message_id(self, index: int) -> str:
        """Return the id of message `index`: 16 lowercase hex digits, the first of them 1."""
        return f"1{self._messages.encode(index):015x}"

    def message_index(self, message_id: str) -> int | None:
        """Return the index behind a message id, or None for an id this mailbox never gave out.

        Raises ValueError for text that is not a Gmail id at all.
        """
        if not _HEX_ID.fullmatch(message_id):
            raise ValueError("not a Gmail id")
        if len(message_id) != 16 or message_id[0] != "1":
            return None
        return self._messages.decode(int(message_id[1:], 16))

    def page_token(self, position: int) -> str:
        """Return a page token (20 digits, as Gmail's) for a position in a listing."""
        return f"{self._pages.encode(position):020d}"

    def page_position(self, token: str) -> int:
        """Return the position behind a page token. Raises ValueError for any other text."""
        if not re.fullmatch(r"[0-9]{20}", token) or int(token) > _MASK:
            raise ValueError("not a page token")
        position = self._pages.decode(int(token))
        if position is None:
            raise ValueError("not a page token of this mailbox")
        return position

    def attachment_id(self, index: int, part_id: str) -> str:
        """Return a fresh attachment id for one part; every call gives another text, as Gmail's."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plain = f"{index}:{part_id}".encode().ljust(40, b" ")
        check = hashlib.sha256(self._attachment_key + plain).digest()[:_CHECK_BYTES]
        sealed = self._mask(nonce, check + plain)
        return "AN" + base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def attachment_part(self, index: int, attachment_id: str) -> str:
        """Return the part id behind an attachment id.

        Raises ValueError when the text is not an attachment id of message `index`.
        """
        text = attachment_id.removeprefix("AN")
        try:
            blob = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error as error:
            raise ValueError("not an attachment id") from error
        unsealed = self._mask(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:])
        check, plain = unsealed[:_CHECK_BYTES], unsealed[_CHECK_BYTES:]
        if check != hashlib.sha256(self._attachment_key + plain).digest()[:_CHECK_BYTES]:
            raise ValueError("not an attachment id of this mailbox")
        owner, _, part_id = plain.decode().strip().partition(":")
        if int(owner) != index:
            raise ValueError("an attachment id of another message")
        return part_id

    def _mask(self, nonce: bytes, data: bytes) -> bytes:
        pad = hashlib.sha256(self._attachment_key + nonce).digest()
        pad += hashlib.sha256(pad).digest()
        return bytes(a ^ b for a, b in zip(data, pad, strict=False))
