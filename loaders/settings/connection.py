"""A configured mailbox or account, and its options' values."""

from __future__ import annotations

import dataclasses
from typing import Any

from loaders.errors import register_secret, register_url_password

SANDBOX = "sandbox"


@dataclasses.dataclass(frozen=True)
class Connection:
    """One configured mailbox or account: `[sources.<source>.<name>]`."""

    source_system: str
    name: str

    def get(self, option: str) -> Any:
        """An option's value from dlt's configuration and secrets providers, or None."""
        import dlt

        key = f"sources.{self.source_system}.{self.name}.{option}"
        value: Any = dlt.config.get(key)
        if value is None:
            value = dlt.secrets.get(key)
        if isinstance(value, str):
            register_url_password(value)
        return value

    def secret(self, option: str) -> str | None:
        """A secret option's value, remembered so that no message ever shows it."""
        value = self.get(option)
        if value is None:
            return None
        register_secret(str(value))
        return str(value)

    @property
    def is_sandbox(self) -> bool:
        """Whether this is the stand-in that runs when nothing is configured."""
        return self.name == SANDBOX
