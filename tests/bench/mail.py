"""Generated mail on disk, one message a line, written before any clock starts."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from landfall_sandbox.mailbox import Mailbox
from loaders.objects.idem_keys import gmail_idem_key
from loaders.objects.items import Cursor, Item, Listed, ObservationClock, Observed
from loaders.sources.contract import FetchRequest

CONNECTION = "bench"

_HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Content-Type"]
_LARGE = 100_000
_PAGE = 500


def write_messages(path: str, count: int, message_format: str) -> dict[str, Any]:
    """Write messages as Gmail sends them, about 4 KB each as `full`, 1 KB as `headers`.

    `mixed` is `full` with the large mail left in (1.4 MB, every 200th): 11 KB on average.
    Gmail escapes angle brackets for HTML's sake, so its text is not what a JSON library writes.
    """
    mailbox = Mailbox(seed=1, size=count + count // 100)
    written = index = 0
    with Path(path).open("w") as file:
        while written < count:
            text = _text(mailbox, index, message_format)
            index += 1
            if message_format == "mixed" or len(text) < _LARGE:
                file.write(text + "\n")
                written += 1
    return {}


def _text(mailbox: Mailbox, index: int, message_format: str) -> str:
    if message_format == "headers":
        message = mailbox.message(index, "metadata", _HEADERS)
    else:
        message = mailbox.message(index)
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


class FileSource:
    """A mailbox that has been downloaded: yields each line of a file as one message."""

    source_system = "gmail"
    volatile_keys: Collection[str] = ("attachmentId",)

    def __init__(self, path: str) -> None:
        self._path = path
        self._key = gmail_idem_key(CONNECTION)

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        count = 0
        for item in self.items(request.clock):
            if count % _PAGE == 0:
                yield Listed(_PAGE)
            count += 1
            yield item
        if count:
            yield Listed(-count % _PAGE * -1)
            yield Cursor("messages", {"history_id": str(count)}, request.clock.now())

    def items(self, clock: ObservationClock) -> Iterator[Observed]:
        with Path(self._path).open("rb") as file:
            for line in file:
                yield Observed("message", line.rstrip(), clock.now())

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        return self._key(payload)

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime:
        return dt.datetime.fromtimestamp(int(payload["internalDate"]) / 1000, dt.UTC)

    def close(self) -> None:
        pass
