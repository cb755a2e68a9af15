"""Query parameters of a Stripe request, checked as Stripe checks them.

Source: Stripe API reference, "Pagination", "Expanding Responses".
"""

import math
import re
from collections.abc import Collection, Mapping

from landfall_sandbox.stripe import errors

_DEFAULT_LIMIT = 10
_MAX_LIMIT = 100
_PAGING = ("limit", "starting_after", "ending_before")
_BOUNDS = ("gt", "gte", "lt", "lte")


class Parameters:
    """The parameters of one request. All methods raise ApiError (400) for a bad value."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        """Wrap the `values`; lists come as name[] or as name[0], name[1]."""
        self._values: dict[str, list[str]] = {}
        for name, texts in values.items():
            plain = re.sub(r"\[\d*\]$", "[]", name)
            self._values.setdefault(plain, []).extend(texts)

    def check_names(self, filters: Collection[str], *, is_list: bool) -> None:
        """Refuse a parameter that the method doesn't have, and empty ones."""
        allowed = {"expand[]", *filters, *(_PAGING if is_list else ())}
        if "created" in allowed:
            allowed |= {f"created[{bound}]" for bound in _BOUNDS}
        for name, texts in self._values.items():
            if name not in allowed:
                raise errors.unknown_parameter(name.removesuffix("[]"))
            if "" in texts:
                message = f"You passed an empty string for '{name}'."
                raise errors.bad_request(message, name, "parameter_invalid_empty")

    def text(self, name: str) -> str | None:
        """Return the last value of a parameter, or None."""
        return values[-1] if (values := self._values.get(name)) else None

    def texts(self, name: str) -> list[str]:
        """Return the values of a list parameter."""
        return self._values.get(f"{name}[]", [])

    def limit(self) -> int:
        """Return the size of a page: 1 to 100, by default 10."""
        limit = self._whole("limit", self.text("limit"))
        if limit is None:
            return _DEFAULT_LIMIT
        if not 1 <= limit <= _MAX_LIMIT:
            border = "greater than or equal to 1" if limit < 1 else "less than or equal to 100"
            raise errors.bad_request(
                f"This value must be {border}.", "limit", "parameter_invalid_integer"
            )
        return limit

    def cursor(self) -> tuple[str, str] | None:
        """Return "starting_after" or "ending_before" with the id given for it, or None."""
        after, before = self.text("starting_after"), self.text("ending_before")
        if after is not None and before is not None:
            message = "You cannot parameterize both starting_after and ending_before."
            raise errors.bad_request(message, "starting_after")
        if after is not None:
            return "starting_after", after
        return None if before is None else ("ending_before", before)

    def created(self) -> tuple[float, float]:
        """Return the first and the last second that `created` lets through."""
        exact = self._whole("created", self.text("created"))
        if exact is not None:
            return exact, exact
        low, high = -math.inf, math.inf
        for bound in _BOUNDS:
            name = f"created[{bound}]"
            moment = self._whole(name, self.text(name))
            if moment is None:
                continue
            if bound.startswith("g"):
                low = max(low, moment + (bound == "gt"))
            else:
                high = min(high, moment - (bound == "lt"))
        return low, high

    @staticmethod
    def _whole(name: str, value: str | None) -> int | None:
        if value is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise errors.invalid_integer(name, value)
        return int(value)
