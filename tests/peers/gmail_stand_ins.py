"""One mailbox on each stand-in of the Gmail API, filled and changed in the same words."""

from __future__ import annotations

import base64
import dataclasses
import json
import urllib.request
from collections.abc import Sequence
from typing import Any, Protocol

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.texts import OWNER_ADDRESS

LABEL, LABEL_NAME = "Label_1", "Clients"
"""A user label that every mailbox has."""


class StandIn(Protocol):
    """An empty mailbox with the system labels and LABEL."""

    @property
    def url(self) -> str:
        """Where it answers."""
        ...

    @property
    def token(self) -> str:
        """An access token to the mailbox."""
        ...

    @property
    def address(self) -> str:
        """The mailbox's own."""
        ...

    def deliver(
        self, raw: bytes, date_ms: int, *, labels: Sequence[str] = (), thread_id: str | None = None
    ) -> str:
        """Put a message in and return its id."""
        ...

    def delete(self, message_id: str) -> None:
        """Delete a message for good."""
        ...

    def relabel(
        self, message_id: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> None:
        """Put labels on a message and take others off."""
        ...

    def rename_label(self, name: str) -> None:
        """Rename LABEL."""
        ...

    def delete_label(self) -> None:
        """Delete LABEL."""
        ...

    def expire_history(self) -> str:
        """Let the history expire as far as that can be; return an id that is too old."""
        ...


@dataclasses.dataclass
class SandboxMailbox:
    """A sandbox of its own, without generated mail."""

    sandbox: Sandbox
    token: str = "any-token"
    address: str = OWNER_ADDRESS

    @property
    def url(self) -> str:
        return self.sandbox.base_url

    def deliver(
        self, raw: bytes, date_ms: int, *, labels: Sequence[str] = (), thread_id: str | None = None
    ) -> str:
        return self.sandbox.insert(
            raw, labels=labels, internal_date_ms=date_ms, thread_id=thread_id
        )

    def delete(self, message_id: str) -> None:
        self.sandbox.change(delete=[message_id])

    def relabel(
        self, message_id: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> None:
        changes = {"ids": [message_id], "add": list(add), "remove": list(remove)}
        self.sandbox.change(labels=changes)

    def rename_label(self, name: str) -> None:
        self.sandbox.change(label_rename={"id": LABEL, "name": name})

    def delete_label(self) -> None:
        self.sandbox.change(label_delete=LABEL)

    def expire_history(self) -> str:
        now = int(self.sandbox.change()["history_id"])
        self.sandbox.settings(history_expired_before=now)
        return str(now - 1)


@dataclasses.dataclass
class EmulateMailbox:
    """A user of a running `emulate`."""

    url: str
    token: str
    address: str

    @staticmethod
    def seed(users: int) -> dict[str, Any]:
        """What `emulate` is started with: so many users, numbered as `of_number` numbers them."""
        boxes = [EmulateMailbox.of_number("", number) for number in range(users)]
        return {
            "tokens": {box.token: {"login": box.address} for box in boxes},
            "google": {
                "users": [{"email": box.address} for box in boxes],
                "labels": [
                    {"id": LABEL, "name": LABEL_NAME, "user_email": box.address} for box in boxes
                ],
            },
        }

    @classmethod
    def of_number(cls, url: str, number: int) -> EmulateMailbox:
        return cls(url, f"token-{number}", f"user-{number}@example.com")

    def deliver(
        self, raw: bytes, date_ms: int, *, labels: Sequence[str] = (), thread_id: str | None = None
    ) -> str:
        body: dict[str, Any] = {
            "raw": base64.urlsafe_b64encode(raw).decode(),
            "internalDate": str(date_ms),
            "labelIds": list(labels),
        }
        if thread_id is not None:
            body["threadId"] = thread_id
        return str(self._request("POST", "messages", body)["id"])

    def delete(self, message_id: str) -> None:
        self._request("DELETE", f"messages/{message_id}")

    def relabel(
        self, message_id: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> None:
        body = {"addLabelIds": list(add), "removeLabelIds": list(remove)}
        self._request("POST", f"messages/{message_id}/modify", body)

    def rename_label(self, name: str) -> None:
        self._request("PATCH", f"labels/{LABEL}", {"name": name})

    def delete_label(self) -> None:
        self._request("DELETE", f"labels/{LABEL}")

    def expire_history(self) -> str:
        return "1"

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/gmail/v1/users/me/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or b"null")
