"""Stripe ids: reversible, so that nothing has to be stored."""

import hashlib
import re

from landfall_sandbox.ids import Permutation

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE = len(_ALPHABET)
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_DIGITS = 12
_MARK_DIGITS = 11


class StripeIds:
    """The ids of one kind of object: a prefix, the account's mark and 12 digits of base 62."""

    def __init__(self, seed: int, prefix: str, name: str) -> None:
        """Derive the ids from the account's `seed`; `name` keeps kinds apart."""
        self._permutation = Permutation(seed, f"stripe {name}")
        self._start = f"{prefix}_1{account_mark(seed)}"
        self._pattern = re.compile(f"{self._start}([0-9A-Za-z]{{{_DIGITS}}})")

    def encode(self, index: int) -> str:
        """Return the id of object `index`: the prefix and 24 letters and digits."""
        number = self._permutation.encode(index)
        number, a = divmod(number, 3844)
        number, b = divmod(number, 3844)
        number, c = divmod(number, 3844)
        number, d = divmod(number, 3844)
        f, e = divmod(number, 3844)
        return f"{self._start}{_PAIRS[f]}{_PAIRS[e]}{_PAIRS[d]}{_PAIRS[c]}{_PAIRS[b]}{_PAIRS[a]}"

    def decode(self, text: str) -> int | None:
        """Return the index behind an id; None for text that is no id of this kind."""
        found = self._pattern.fullmatch(text)
        if not found:
            return None
        number = 0
        for character in found[1]:
            number = number * _BASE + _VALUES[character]
        return self._permutation.decode(number) if number < 1 << 60 else None


def account_mark(seed: int) -> str:
    """Return the letters that all ids of an account share."""
    digest = hashlib.sha256(f"stripe account:{seed}".encode()).digest()
    return "".join(_ALPHABET[byte % _BASE] for byte in digest[:_MARK_DIGITS])
