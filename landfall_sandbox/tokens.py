"""Access tokens: which of them are good."""

import hashlib
import threading

_EXPIRED_TOKEN = "expired"


class Tokens:
    """Any access token but "expired" is good, until tokens are made to expire.

    From then on only those are that were given out since.
    """

    def __init__(self) -> None:
        """Start with tokens that last for ever."""
        self._lock = threading.RLock()
        self._generation = 0
        self._given: set[str] = set()
        self._limit: int | None = None
        self._uses = 0

    def trust_all(self) -> None:
        """Take any token again."""
        self._begin(0)

    def expire(self) -> None:
        """Refuse every token given out so far, and any other."""
        self._begin(self._generation + 1)

    def expire_after(self, requests: int | None) -> None:
        """Let tokens expire whenever they were used for so many requests (None: never)."""
        with self._lock:
            self._limit, self._uses = requests, 0

    def _begin(self, generation: int) -> None:
        with self._lock:
            self._generation, self._given, self._uses = generation, set(), 0

    def issue(self, secret: str) -> str:
        """Return an access token: the same for a secret until it expires."""
        with self._lock:
            salt = f"{self._generation}:" if self._generation else ""
            digest = hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()
            token = f"sandbox-{digest[:40]}"
            self._given.add(token)
        return token

    def use(self, token: str) -> bool:
        """Count a request with a token; return whether the token is good."""
        with self._lock:
            if self._limit is not None and self._uses >= self._limit:
                self.expire()
            is_known = self._generation == 0 or token in self._given
            is_good = is_known and token != _EXPIRED_TOKEN
            self._uses += is_good
            return is_good
