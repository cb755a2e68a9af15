"""Which objects were erased: they are not stored again, by whatever way they come.

A block is the SHA-256 of an idem_key, so that it does not hold an id that may be personal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from loaders.objects.idem_keys import idem_key, owner_key


def key_hash(key: str) -> str:
    """SHA-256 of an idem_key, as `erasures` has it."""
    return hashlib.sha256(key.encode()).hexdigest()


class Erased:
    """The blocks of one connection, or of all of them."""

    def __init__(self, hashes: Iterable[str] = ()) -> None:
        self._hashes = {bytes.fromhex(text) for text in hashes}

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._hashes)

    def covers(
        self, source_system: str, connection_name: str, object_type: str, external_id: str
    ) -> bool:
        """Whether an object was erased, or the one that it is a part of."""
        if not self._hashes:
            return False
        names = (source_system, connection_name, object_type, external_id)
        return self._has(idem_key(*names)) or self._has(owner_key(*names))

    def _has(self, key: str | None) -> bool:
        return key is not None and bytes.fromhex(key_hash(key)) in self._hashes
