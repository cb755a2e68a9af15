"""Reading messages: how much is in memory at once, and what ends it."""

from __future__ import annotations

import concurrent.futures
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from google.oauth2.credentials import Credentials

from landfall_sandbox.controls import Sandbox
from loaders.errors import AskedToPause, Cancelled, ForeignAnswer, SourceError, TransientSourceError
from loaders.objects.items import Item, Listed, ObservationClock, Observed
from loaders.sources.contract import FetchOptions, FetchRequest, Usage
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.fetching import ATTACHMENT, MESSAGE, Batch, Fetcher
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.parallel import MAX_WAITING_BYTES
from loaders.sources.refusals import NotFound, RequestRefused

pytestmark = pytest.mark.usefixtures("stays_open")

MEGABYTES = 1024**2


class NothingStored:
    """A warehouse without a row."""

    def held(self, object_type: str, among: Any = None) -> set[str]:
        return set()

    def held_ids(self, object_type: str, seen_since: Any = None) -> Iterator[tuple[str, bool]]:
        return iter(())


class ScriptedClient:
    """Answers as it is told to."""

    def __init__(
        self,
        message: Callable[[str], bytes],
        attachment: Callable[[str], bytes] = lambda _: b"{}",
        **options: Any,
    ) -> None:
        self.config = GmailConfig(**options)
        self._message = message
        self._attachment = attachment

    def message(self, request: FetchRequest, message_id: str) -> bytes:
        return self._message(message_id)

    def attachment(self, request: FetchRequest, message_id: str, attachment_id: str) -> bytes:
        return self._attachment(message_id)


class InPlace(concurrent.futures.Executor):
    """Does what is submitted at once: its workers are infinitely fast."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def new_request(**values: Any) -> FetchRequest:
    stored = cast("Any", NothingStored())
    return FetchRequest(
        ObservationClock(), Usage(), stored, threading.Event(), FetchOptions(**values)
    )


def new_fetcher(client: ScriptedClient, **failures: int) -> Fetcher:
    return Fetcher(cast("GmailClient", client), InPlace(), new_request(), failures)


def read(fetcher: Fetcher, *message_ids: str) -> list[Item]:
    batches = [Batch(key, (key,)) for key in message_ids]
    return [item for item in fetcher.run(batches, len(batches)) if not isinstance(item, Listed)]


@pytest.mark.parametrize(
    ("size", "most"),
    [
        (1, 40),
        (3 * MEGABYTES, 22),
        pytest.param(80 * MEGABYTES, 1, marks=pytest.mark.slow),
    ],
)
def test_answers_that_wait_are_bounded_in_number_and_bytes(size: int, most: int) -> None:
    body = b" " * size
    asked = list[str]()

    def message(message_id: str) -> bytes:
        asked.append(message_id)
        return body

    fetcher = new_fetcher(ScriptedClient(message))
    batches = [Batch(f"m{number}", (f"m{number}",)) for number in range(100 if size == 1 else 50)]
    taken, in_flight = 0, list[int]()
    for item in fetcher.run(batches, len(batches)):
        if isinstance(item, Observed):
            in_flight.append(len(asked) - taken)
            taken += 1
    assert taken == len(batches)
    assert max(in_flight) == most
    assert (most - 1) * size < MAX_WAITING_BYTES


def test_no_more_is_requested_than_there_are_workers() -> None:
    client = ScriptedClient(lambda _: b"{}", workers=3)
    submitted = list[concurrent.futures.Future[Any]]()

    class Lazy(concurrent.futures.Executor):
        """Does the last that was submitted only when no more is."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            submitted.append(concurrent.futures.Future())
            if len(submitted) % 3 == 0:
                for future, batch in zip(submitted[-3:], [*waiting, args[0]], strict=True):
                    future.set_result(fn(batch))
                waiting.clear()
            else:
                waiting.append(args[0])
            return submitted[-1]

    waiting = list[Batch]()
    fetcher = Fetcher(cast("GmailClient", client), Lazy(), new_request())
    assert len(read(fetcher, *"abcdefghi")) == 9


def test_a_cancelled_run_asks_for_nothing_more(sandbox: Sandbox) -> None:
    config = GmailConfig(api_base_url=sandbox.base_url, unit_costs={"threads.get": 1})
    client = GmailClient("acct1", Credentials(token="any"), config)
    request = new_request()
    request.cancelled.set()
    with pytest.raises(Cancelled):
        client.profile(request)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        fetcher = Fetcher(client, pool, request)
        ids = tuple(sandbox.live_ids()[:2])
        for batch in (Batch("t", ids, by_thread=True), Batch("t", ids[:1])):
            with pytest.raises(Cancelled):
                list(fetcher.run([batch], 1))
    assert sandbox.stats()["requests"] == {}


def with_attachment(message_id: str) -> bytes:
    part = {"partId": "1", "body": {"attachmentId": "x", "size": 5}}
    return json.dumps({"id": message_id, "payload": {"parts": [part]}}).encode()


def not_found(_: str) -> bytes:
    raise NotFound("gmail: messages.attachments.get: not found")


def test_an_attachment_that_is_not_there_is_a_failure_of_its_message() -> None:
    client = ScriptedClient(with_attachment, not_found, attachment_max_bytes=10)
    fetcher = new_fetcher(client)
    assert read(fetcher, "a") == []
    assert list(fetcher.unfetched) == ["a"]

    fetcher = new_fetcher(client, a=1)
    fetcher.fetched.add("other")
    fetcher._last_fetched = "other"
    letter, message = read(fetcher, "a")
    assert (letter.object_type, letter.external_id) == (ATTACHMENT, "a:1")  # type: ignore[union-attr]
    assert (message.object_type, message.external_id) == (MESSAGE, "a")  # type: ignore[union-attr]


def test_an_attachment_that_is_gone_with_its_message_is_not_a_failure() -> None:
    answers = iter([with_attachment("a")])

    def message(message_id: str) -> bytes:
        return next(answers, None) or not_found(message_id)

    client = ScriptedClient(message, not_found, attachment_max_bytes=10)
    fetcher = new_fetcher(client)
    assert read(fetcher, "a") == []
    assert (fetcher.gone, fetcher.unfetched) == ({"a"}, {})


def refuse(message_id: str) -> bytes:
    raise TransientSourceError(f"gmail: messages.get failed 6 times: {message_id}")


def test_nothing_is_set_aside_without_a_message_that_can_be_read() -> None:
    fetcher = new_fetcher(ScriptedClient(refuse), a=1, b=1)
    assert read(fetcher, "a", "b") == []
    with pytest.raises(TransientSourceError, match=r"2 message.* none could be read"):
        fetcher.require_an_answer()


def forbid(message_id: str) -> bytes:
    raise RequestRefused(f"gmail: messages.get refused with 403 forbidden: {message_id}")


def test_a_refusal_concerns_one_message_unless_others_are_refused_too() -> None:
    fetcher = new_fetcher(ScriptedClient(lambda key: forbid(key) if key == "a" else b"{}"))
    assert len(read(fetcher, *"abc")) == 2
    assert list(fetcher.unfetched) == ["a"]
    fetcher.require_an_answer()

    calls = list[str]()

    def message(message_id: str) -> bytes:
        calls.append(message_id)
        return b"{}" if len(calls) <= 2 else forbid(message_id)

    with pytest.raises(SourceError, match="403 forbidden: b") as raised:
        read(new_fetcher(ScriptedClient(message, workers=1)), *"abcdefghijkl")
    assert not raised.value.retryable


@pytest.mark.parametrize("fail", [refuse, forbid])
def test_reading_ends_when_nothing_could_be_read_of_many(fail: Callable[[str], bytes]) -> None:
    calls = list[str]()

    def message(message_id: str) -> bytes:
        calls.append(message_id)
        return fail(message_id)

    fetcher = new_fetcher(ScriptedClient(message, workers=1))
    assert read(fetcher, *(f"m{number}" for number in range(1_000))) == []
    assert len(calls) < 150
    with pytest.raises(SourceError, match="none could be read, the last with: gmail") as raised:
        fetcher.require_an_answer()
    assert raised.value.retryable is (fail is refuse)


def test_what_was_read_beside_a_pause_is_kept() -> None:
    def message(message_id: str) -> bytes:
        if message_id == "b":
            raise AskedToPause("gmail: messages.get: asked to pause")
        return b"{}"

    fetcher = new_fetcher(ScriptedClient(message))
    with pytest.raises(AskedToPause):
        read(fetcher, *"abcd")
    assert fetcher.fetched == set("acd")


def test_a_message_is_no_witness_of_its_own_failure() -> None:
    fetcher = new_fetcher(ScriptedClient(refuse), a=1)
    fetcher._held = ["a"]
    assert read(fetcher, "a") == []
    assert not fetcher.is_down
    assert list(fetcher.unfetched) == ["a"]


def test_reading_ends_when_what_could_be_read_cannot_be_read_any_more() -> None:
    calls = list[str]()

    def message(message_id: str) -> bytes:
        calls.append(message_id)
        return b"{}" if len(calls) <= 2 else refuse(message_id)

    client = ScriptedClient(message, workers=1)
    fetcher = new_fetcher(client, c=1)
    items = read(fetcher, *"abcdefghijkl")
    assert [item.external_id for item in items] == ["a", "b"]  # type: ignore[union-attr]
    assert fetcher.is_down
    assert fetcher.is_bounded
    assert list(fetcher.unfetched) == ["c"]
    assert "b" in calls[2:]
    fetcher.require_an_answer()


@pytest.mark.parametrize("hidden", [True, False])
def test_another_message_than_was_asked_for_is_no_state(hidden: bool) -> None:
    label = "TRASH" if hidden else "INBOX"

    def message(message_id: str) -> bytes:
        asked = "other" if message_id == "a" else message_id
        return b'{"id":"%b","labelIds":["%b"]}' % (asked.encode(), label.encode())

    fetcher = new_fetcher(ScriptedClient(message))
    items = read(fetcher, "a")
    assert items == []
    assert "a" not in fetcher.gone
    assert list(fetcher.unfetched) == ["a"]


def test_what_somebody_else_answers_is_never_set_aside() -> None:
    def message(message_id: str) -> bytes:
        if message_id == "a":
            raise ForeignAnswer("gmail: messages.get answered something else")
        return b"{}"

    fetcher = new_fetcher(ScriptedClient(message), a=5)
    assert [item.external_id for item in read(fetcher, "b", "a")] == ["b"]  # type: ignore[union-attr]
    assert list(fetcher.unfetched) == ["a"]
