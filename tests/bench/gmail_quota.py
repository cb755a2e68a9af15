"""A mailbox read under an enforced quota: ours, plain gets, Google's batches, side by side.

Each way reads a mailbox of its own, from a server of its own, all at the same time: they wait
far more than they compute. Windows are real minutes, because the back-offs of the naive ways
are in real seconds, and because the burst that pacing allows itself is a share of a minute.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
import itertools
import logging
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from landfall_sandbox.controls import Sandbox
from loaders.objects.items import ObservationClock, Observed
from loaders.sources.contract import FetchRequest, Usage
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.gmail.source import GmailSource
from loaders.sources.pacing import TokenBucket
from loaders.warehouse.contents import Stored
from tests.bench.harness import Figures, print_table

LATENCY_SECONDS = 0.05
WINDOW_SECONDS = 60
BATCH_SIZE = 50
RETRIES = 8
"""Of the naive ways: back-offs of together a window and more, or messages would be lost."""
_LONGEST_BACKOFF = 64
_QUOTAS = ("current", "legacy")
_SPEEDS = {"none": 1.0, "four": 1.9}
"""Messages that ours reads for the units of one messages.get, at most."""
_HIDDEN = 0.07
"""Of a sandbox mailbox is in spam or trash."""
_TITLE = """\
Reading a mailbox under its quota, {latency:.0f} ms a request; {windows} windows of 60 s, not scaled
messages/s: over all windows but the first, so that neither its burst nor the listing counts
ceiling: units a minute / units of one messages.get, as if every unit went into that
messages/1,000 units: of all units that the server counted from the start on, list pages (5 units
each), profile, labels and history too; refused: over the whole run
lost: of a way that reached the end, all that is in the mailbox and was not read; of one that time
cut off, what it gave up"""
_HALVED_TITLE = """\
Somebody else takes half of the quota after the first window (ours, mailbox without threads)
ceiling: of the half that is left"""


class TimeIsUp(Exception):
    """Nothing more is to be read."""


@dataclasses.dataclass
class Reading:
    """What one way has read so far, and when; a thread fills it while another waits."""

    is_over: threading.Event = dataclasses.field(default_factory=threading.Event)
    """The time is up."""
    received: dict[str, float] = dataclasses.field(default_factory=dict)
    given_up: int = 0
    is_complete: bool = False
    error: str | None = None
    ended_at: float | None = None

    def sleep(self, seconds: float) -> None:
        """Back off; raises TimeIsUp when that comes first."""
        if self.is_over.wait(seconds):
            raise TimeIsUp

    def keep(self, message_id: str) -> None:
        """A message has arrived."""
        self.received.setdefault(message_id, time.monotonic())

    def between(self, start: float, end: float) -> int:
        """Messages that arrived then."""
        return sum(start <= moment < end for moment in list(self.received.values()))


Way = Callable[[str, str, Reading], None]


def run(quick: bool) -> Figures:
    """All cells at once; the figures by quota, mailbox and way."""
    windows = 2 if quick else 4
    cells = [(quota, threads, way) for quota in _QUOTAS for threads in _SPEEDS for way in _WAYS]
    adaptive = list(itertools.product(_QUOTAS, (True, False)))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(cells) + len(adaptive), context) as pool:
        measured = [pool.submit(measure, *cell, windows) for cell in cells]
        halved = [pool.submit(measure_halved, *case, windows) for case in adaptive]
        figures = [future.result() for future in measured]
        halved_figures = [future.result() for future in halved]
    _print_ways(figures, windows)
    _print_halved(halved_figures)
    return {"windows": windows, "ways": figures, "halved": halved_figures}


def measure(quota: str, threads: str, way: str, windows: int) -> Figures:
    """One way on one mailbox, in this process."""
    config = GmailConfig(quota=quota)
    size = _mailbox_size(config, threads, windows)
    with Sandbox(size=size, threads=threads) as sandbox:
        # Ours is to reach the end of its mailbox, which takes a little longer.
        grace = WINDOW_SECONDS / 2 if _WAYS[way] is ours else 0
        reading, stats, seconds = _read(_WAYS[way], sandbox, config, windows, grace)
        live = set(sandbox.live_ids())
    rate = reading.between(*seconds) / (seconds[1] - seconds[0])
    missing = len(live - reading.received.keys())
    return {
        "quota": quota,
        "threads": threads,
        "way": way,
        "messages_per_second": rate,
        "of_ceiling": rate / _ceiling(config),
        "messages_per_1000_units": 1000 * len(reading.received) / stats["units"],
        "refused": stats["refused"],
        "lost": missing if reading.is_complete else _given_up(reading),
        "mailbox": len(live),
        "read": len(reading.received),
        "is_complete": reading.is_complete,
        "error": reading.error,
    }


def measure_halved(quota: str, slows_down: bool, windows: int) -> Figures:
    """Ours while the quota is halved after the first window, in this process."""
    if not slows_down:
        setattr(TokenBucket, "slow_down", _ignore)  # noqa: B010 - mypy refuses an assignment
    config = GmailConfig(quota=quota)
    with Sandbox(size=_mailbox_size(config, "none", windows), threads="none") as sandbox:
        half = _enforced(config, share=0.5)
        timer = threading.Timer(WINDOW_SECONDS, lambda: sandbox.settings(quota=half))
        reading, stats, seconds = _read(ours, sandbox, config, windows, 0, timer)
    rate = reading.between(*seconds) / (seconds[1] - seconds[0])
    return {
        "quota": quota,
        "slows_down": slows_down,
        "messages_per_second": rate,
        "of_ceiling": rate / (_ceiling(config) / 2),
        "refused": stats["refused"],
        "given_up": _given_up(reading),
        "error": reading.error,
        "ended_after": (reading.ended_at or seconds[1]) - seconds[0],
    }


def ours(base_url: str, quota: str, reading: Reading) -> None:
    """A first run's fetch with the defaults; nothing is landed."""
    config = GmailConfig(api_base_url=base_url, quota=quota)
    source = GmailSource("bench", _credentials(), config)
    request = FetchRequest(
        clock=ObservationClock(),
        usage=Usage(),
        stored=Stored(cast(Any, None), "gmail", "bench", is_empty=True),
        cancelled=threading.Event(),
        seconds_left=lambda: -1.0 if reading.is_over.is_set() else 300.0,
    )
    try:
        for item in source.fetch(request):
            if isinstance(item, Observed) and item.object_type == "message":
                reading.keep(str(item.external_id))
        reading.is_complete = not request.outcome.has_more
        reading.given_up = request.outcome.unfetched
    finally:
        request.cancelled.set()
        source.close()


def plain_gets(base_url: str, quota: str, reading: Reading) -> None:
    """One messages.get after the other; the client's own retries."""
    from googleapiclient.errors import HttpError

    messages = _messages(base_url)
    for message_id in list(_listed_ids(messages)):
        reading.sleep(0)
        request = messages.get(userId="me", id=message_id)
        request._sleep = reading.sleep  # so that nobody waits for minutes of back-off at the end
        try:
            request.execute(num_retries=RETRIES)
        except HttpError:
            reading.given_up += 1
        else:
            reading.keep(message_id)
    reading.is_complete = True


def batches(base_url: str, quota: str, reading: Reading) -> None:
    """Batch after batch; the parts that fail are sent again after a truncated back-off."""
    messages = _messages(base_url)
    ids = list(_listed_ids(messages))
    for start in range(0, len(ids), BATCH_SIZE):
        todo = ids[start : start + BATCH_SIZE]
        for attempt in range(RETRIES + 1):
            reading.sleep(0)
            todo = _send_batch(f"{base_url}/batch/gmail/v1", messages, todo, reading)
            if not todo or attempt == RETRIES:
                break
            reading.sleep(min(2**attempt + random.random(), _LONGEST_BACKOFF))
        reading.given_up += len(todo)
    reading.is_complete = True


_WAYS: dict[str, Way] = {
    "ours": ours,
    "messages.get, one by one": plain_gets,
    f"batches of {BATCH_SIZE}": batches,
}


def _read(
    way: Way,
    sandbox: Sandbox,
    config: GmailConfig,
    windows: int,
    grace_seconds: float,
    timer: threading.Timer | None = None,
) -> tuple[Reading, dict[str, Any], tuple[float, float]]:
    """Run a way; what it read, what the server counted, and the moments to measure between."""
    # The client warns of every refusal; there are thousands.
    logging.getLogger("googleapiclient").setLevel(logging.ERROR)
    _messages(sandbox.base_url)  # imports, outside of what is measured
    sandbox.settings(latency=LATENCY_SECONDS, quota=_enforced(config))
    if timer:
        timer.start()
    reading = Reading()
    began = time.monotonic()
    end = began + windows * WINDOW_SECONDS
    thread = threading.Thread(
        target=_run_way, args=(way, sandbox.base_url, config.quota, reading), daemon=True
    )
    thread.start()
    thread.join(end + grace_seconds - began)
    reading.is_over.set()
    thread.join()
    if timer:
        timer.cancel()
    return reading, sandbox.stats(), (began + WINDOW_SECONDS, end)


def _run_way(way: Way, base_url: str, quota: str, reading: Reading) -> None:
    try:
        way(base_url, quota, reading)
    except TimeIsUp:
        pass
    except Exception as error:
        reading.error = f"{type(error).__name__}: {error}"
    reading.ended_at = time.monotonic()


def _given_up(reading: Reading) -> int | None:
    """Messages that a way failed on; None of one that failed itself, as it does not say."""
    return None if reading.error else reading.given_up


def _ignore(bucket: TokenBucket, seconds: float) -> None:
    """Stand in for slow_down."""


def _ceiling(config: GmailConfig) -> float:
    """Messages a second if every unit went into messages.get."""
    return config.units_limit / config.costs["messages.get"] / 60


def _mailbox_size(config: GmailConfig, threads: str, windows: int) -> int:
    """A little more than ours reads in so many windows."""
    visible = _ceiling(config) * WINDOW_SECONDS * windows * _SPEEDS[threads] * 1.02
    return round(visible / (1 - _HIDDEN))


def _enforced(config: GmailConfig, share: float = 1.0) -> dict[str, Any]:
    return {
        "units_per_minute": round(config.units_limit * share),
        "costs": dict(config.costs),
        "window_seconds": WINDOW_SECONDS,
    }


def _credentials() -> Any:
    from google.oauth2.credentials import Credentials

    in_an_hour = dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(hours=1)
    return Credentials(token="any-token", expiry=in_an_hour)


def _messages(base_url: str) -> Any:
    from googleapiclient.discovery import build

    service = build(
        "gmail",
        "v1",
        credentials=_credentials(),
        client_options={"api_endpoint": base_url},
        static_discovery=True,
    )
    return service.users().messages()


def _listed_ids(messages: Any) -> Iterator[str]:
    request = messages.list(userId="me", maxResults=500)
    while request is not None:
        page = request.execute(num_retries=RETRIES)
        yield from (entry["id"] for entry in page.get("messages", ()))
        request = messages.list_next(request, page)


def _send_batch(uri: str, messages: Any, ids: list[str], reading: Reading) -> list[str]:
    """Send one batch; the ids that failed."""
    from googleapiclient.http import BatchHttpRequest

    failed: list[str] = []

    def keep(message_id: str, answer: Any, error: Exception | None) -> None:
        if error is None:
            reading.keep(message_id)
        else:
            failed.append(message_id)

    batch = BatchHttpRequest(callback=keep, batch_uri=uri)
    for message_id in ids:
        batch.add(messages.get(userId="me", id=message_id), request_id=message_id)
    batch.execute()
    return failed


def _print_ways(figures: list[Figures], windows: int) -> None:
    goals = {"none": "at least 95 %", "four": "above 130 %"}
    mailboxes = {"none": "no threads", "four": "4 a thread"}
    print_table(
        _TITLE.format(latency=1000 * LATENCY_SECONDS, windows=windows),
        (
            "quota",
            "mailbox",
            "way",
            "messages/s",
            "of ceiling",
            "goal",
            "messages/1,000 units",
            "refused",
            "read",
            "lost (goal 0)",
            "error",
        ),
        [
            (
                each["quota"],
                mailboxes[each["threads"]],
                each["way"],
                each["messages_per_second"],
                f"{each['of_ceiling']:.1%}",
                goals[each["threads"]] if each["way"] == "ours" else "",
                each["messages_per_1000_units"],
                each["refused"],
                f"{each['read']:,} of {each['mailbox']:,}",
                each["lost"],
                each["error"] or "",
            )
            for each in figures
        ],
    )


def _print_halved(figures: list[Figures]) -> None:
    print_table(
        _HALVED_TITLE,
        ("quota", "pacing", "messages/s", "of ceiling", "refused", "given up", "run"),
        [
            (
                each["quota"],
                "slows down when refused" if each["slows_down"] else "does not slow down",
                each["messages_per_second"],
                f"{each['of_ceiling']:.1%}",
                each["refused"],
                each["given_up"],
                _outcome(each),
            )
            for each in figures
        ],
    )


def _outcome(figures: Figures) -> str:
    if figures["error"]:
        return f"failed {figures['ended_after']:.0f} s after that"
    return "went on"
