"""Query parameters of a Google API request, checked as Google checks them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from landfall_sandbox import google_errors as errors

# Accepted by every method; only `fields` changes the answer here.
_COMMON = {"$.xgafv", "access_token", "alt", "callback", "fields", "key", "oauth_token"}
_COMMON |= {"prettyPrint", "quotaUser", "uploadType", "upload_protocol"}
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 500


class Parameters:
    """The parameters of one request. All methods raise ApiError (400) for a bad value."""

    def __init__(self, values: Mapping[str, list[str]], allowed: Sequence[str]) -> None:
        """Wrap the `values`; `allowed` are the method's own parameters."""
        self._values = values
        self._allowed = _COMMON.union(allowed)

    def check_names(self) -> None:
        """Refuse a parameter that the method doesn't have."""
        for name in self._values:
            if name not in self._allowed:
                raise errors.unknown_parameter(name)

    def texts(self, name: str) -> list[str]:
        """Return all values of a repeated parameter."""
        return list(self._values.get(name, []))

    def text(self, name: str) -> str | None:
        """Return the last value of a parameter, or None."""
        return values[-1] if (values := self._values.get(name)) else None

    def whole(self, name: str, default: int | None) -> int | None:
        """Return an unsigned whole number, or the default."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,20}", value):
            raise errors.invalid_argument(f"Invalid value at '{name}' (TYPE_UINT64), \"{value}\"")
        return int(value)

    def limit(self) -> int:
        """Return maxResults: 1 to 500, by default 100."""
        limit = self.whole("maxResults", _DEFAULT_LIMIT)
        if limit is None or not 1 <= limit <= _MAX_LIMIT:
            raise errors.invalid_argument(f"Invalid maxResults: {limit}; must be 1 to {_MAX_LIMIT}")
        return limit

    def flag(self, name: str) -> bool:
        """Return a boolean, by default false."""
        value = (self.text(name) or "false").lower()
        if value not in ("true", "false"):
            raise errors.invalid_argument(f"Invalid value at '{name}' (TYPE_BOOL), \"{value}\"")
        return value == "true"

    def choices(self, name: str, known: Sequence[str]) -> list[str]:
        """Return the values of a repeated parameter that has a fixed set of them."""
        values = self.texts(name)
        for value in values:
            if value not in known:
                raise errors.invalid_argument(f"Invalid value at '{name}', \"{value}\"")
        return values

    def select_fields(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Keep only the top-level fields that `fields` names; a nested selector is ignored."""
        fields = self.text("fields")
        if not fields or not re.fullmatch(r"\w+(,\w+)*", fields):
            return answer
        wanted = fields.split(",")
        return {name: value for name, value in answer.items() if name in wanted}
