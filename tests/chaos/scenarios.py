"""What is killed: how an account and a warehouse are prepared, what the victim runs, what follows.

A scenario's account does not change any more once it is prepared, so that one server serves
all of its cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from landfall_sandbox.controls import Sandbox
from tests.chaos.truth import STRIPE_KEY, TOKEN

CONNECTION = "chaos"
_BATCH_SIZES = {"gmail": "20", "stripe": "60"}
_HOUR = 3600
_UNSTORABLE = {"tooPrecise": 12345678901234567890123}
"""A number that no warehouse keeps: its message becomes a dead letter."""

Arguments = tuple[str, ...]
History = dict[str, int]
Change = Callable[[Sandbox, History], None]
"""Changes the account and notes the history ids of what it does."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that prepares the warehouse, and how it ends."""

    arguments: Arguments
    exit_code: int = 0


@dataclasses.dataclass(frozen=True)
class Scenario:
    """`victim` is killed after `steps`; `clean` then goes on to the end, and `repeated` once more.

    `packages` is how many load packages the victim lands, at least.
    """

    name: str
    source: str
    victim: Arguments
    clean: tuple[Arguments, ...]
    repeated: Arguments
    steps: tuple[Run | Change, ...] = ()
    packages: int = 3
    is_main: bool = False
    """Whether each crash point is combined with each signal."""
    server: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the connection."""

    def open_account(self) -> Sandbox:
        """A server with the same data every time; nothing is started yet."""
        return Sandbox(**self.server)

    def environment(self, base_url: str) -> dict[str, str]:
        """The connection's configuration."""
        prefix = f"SOURCES__{self.source.upper()}__{CONNECTION.upper()}__"
        options = {**_OPTIONS[self.source], **self.options, "API_BASE_URL": base_url}
        return {prefix + name: value for name, value in options.items()}


_OPTIONS = {
    "gmail": {
        "ACCESS_TOKEN": TOKEN,
        "UNITS_PER_MINUTE": "10000000",
        "BACKOFF_SECONDS": "0.01",
    },
    "stripe": {
        "API_KEY": STRIPE_KEY,
        "REQUESTS_PER_SECOND": "100000",
        "ENDPOINT_REQUESTS_PER_SECOND": "100000",
        "BACKOFF_SECONDS": "0.01",
        "MAX_ATTEMPTS": "2",
    },
}


# ---- what happens to a mailbox


def _change(sandbox: Sandbox, history: History, **changes: Any) -> None:
    answer = sandbox.change(**changes)
    for ids in answer["affected"].values():
        history.update(dict.fromkeys(ids, int(answer["history_id"])))


def _by_fives(items: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), 5):
        yield list(items[start : start + 5])


def _relabel(sandbox: Sandbox, history: History, ids: Sequence[str]) -> None:
    for some in _by_fives(ids):
        labels = {"ids": some, "add": ["STARRED", "Label_2"], "remove": ["UNREAD"]}
        _change(sandbox, history, labels=labels)


def _live_on(sandbox: Sandbox, history: History) -> None:
    """Label changes, deletions, arrivals, and those of what has just arrived."""
    ids = sandbox.live_ids()
    _relabel(sandbox, history, ids[:20])
    for some in _by_fives(ids[20:26]):
        _change(sandbox, history, delete=some)
    _change(sandbox, history, labels={"ids": ids[26:29], "add": ["TRASH"], "remove": []})
    for _ in range(5):
        _change(sandbox, history, deliver=6)
    arrived = [key for key in sandbox.live_ids() if key not in ids]
    _relabel(sandbox, history, [*arrived[:6], *ids[29:35]])
    _change(sandbox, history, delete=[arrived[7], ids[0]])


def _relabel_most(sandbox: Sandbox, history: History) -> None:
    _relabel(sandbox, history, sandbox.live_ids()[:110])
    _change(sandbox, history, deliver=5)


def _forget_history(sandbox: Sandbox, history: History) -> None:
    sandbox.settings(history_expired_before=sandbox.change()["history_id"])


def _serve_unstorable(sandbox: Sandbox, history: History) -> None:
    sandbox.set_faults(
        [
            {
                "match": {"method": "messages.get", "id": message_id},
                "times": None,
                "action": {"mutate": {"set": _UNSTORABLE}},
            }
            for message_id in sandbox.live_ids()[:25]
        ]
    )


def _heal(sandbox: Sandbox, history: History) -> None:
    sandbox.set_faults([])


# ---- what happens to a Stripe account


def _trade(sandbox: Sandbox, history: History) -> None:
    """Hours apart: new objects, updates, deletions, money that moves."""
    hours: tuple[dict[str, Any], ...] = (
        {"create": {"customer": 12, "product": 4, "price": 4, "charge": 8}},
        {"update": {"customer": 12, "charge": 12, "invoice": 6, "subscription": 3}},
        {"refund": 4, "dispute": 2, "update": {"product": 4, "price": 4}},
        {"delete": {"customer": 3, "product": 2, "price": 2, "subscription": 1}},
        {"create": {"invoice": 3, "charge": 4}, "payout": 1, "update": {"customer": 6}},
    )
    for hour, changes in enumerate(hours, start=1):
        sandbox.settings(stripe_clock_offset=hour * _HOUR)
        sandbox.change_stripe(**changes)
    sandbox.settings(stripe_clock_offset=6 * _HOUR)


def _fail_on_customers(sandbox: Sandbox, history: History) -> None:
    sandbox.settings(stripe_clock_offset=_HOUR)
    changed = sandbox.change_stripe(update={"customer": 6, "charge": 6})["affected"]["update"]
    sandbox.set_faults(
        [
            {
                "match": {"method": "customers.get", "id": key},
                "times": None,
                "action": {"status": 500},
            }
            for key in changed
            if key.startswith("cus_")
        ]
    )


# ---- scenarios


def _fetch(source: str, *more: str) -> Arguments:
    return (source, "--connection", CONNECTION, "--batch-size", _BATCH_SIZES[source], *more)


def _retry(source: str) -> Arguments:
    return ("retry", source, "--connection", CONNECTION)


def _scenario(name: str, *more: str, **values: Any) -> Scenario:
    source = name.partition("-")[0]
    small = {"size": 60, "seed": 1} if source == "gmail" else {"size": 1, "charges": 25, "seed": 3}
    defaults: dict[str, Any] = {
        "victim": _fetch(source, *more),
        "clean": (_fetch(source, "--until-done"),),
        "server": small,
    }
    # What the run has touched would be nothing; all of the store is to be right.
    repeated = _fetch(source, "--full-check")
    return Scenario(name, source, repeated=repeated, **{**defaults, **values})


_GMAIL, _STRIPE = Run(_fetch("gmail")), Run(_fetch("stripe"))
SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        _scenario("gmail-backfill", is_main=True),
        _scenario("gmail-incremental", steps=(_GMAIL, _live_on), is_main=True),
        # More than are read again at once, and than the position moves along in one go.
        _scenario(
            "gmail-labels",
            steps=(_GMAIL, _relabel_most),
            server={"size": 130, "seed": 1, "threads": "none"},
        ),
        _scenario("gmail-resync", "--full-resync", steps=(_GMAIL, _live_on)),
        _scenario("gmail-expired", steps=(_GMAIL, _live_on, _forget_history)),
        _scenario(
            "gmail-retry",
            victim=_retry("gmail"),
            clean=(_retry("gmail"), _fetch("gmail")),
            steps=(_serve_unstorable, Run(_fetch("gmail"), exit_code=1), _heal),
            server={"size": 60, "seed": 1, "threads": "none"},
            packages=1,
        ),
        # A first fill over three bounded runs, the victim the third: the position of the first
        # stays as it is while objects land.
        _scenario(
            "gmail-bounded",
            "--max-objects=20",
            steps=(Run(_fetch("gmail", "--max-objects=20")),) * 2,
            packages=1,
        ),
        _scenario(
            "stripe-bounded",
            "--max-objects=30",
            steps=(Run(_fetch("stripe", "--max-objects=30")),) * 2,
            packages=1,
        ),
        _scenario("stripe-backfill", is_main=True),
        _scenario("stripe-incremental", steps=(_STRIPE, _trade), is_main=True),
        # Lists of many pages, read in slices at the same time.
        _scenario(
            "stripe-slices",
            "--batch-size=100",
            clean=(_fetch("stripe", "--batch-size=100", "--until-done"),),
            server={"size": 1, "charges": 400, "seed": 3},
            packages=6,
        ),
        _scenario("stripe-resync", "--full-resync", steps=(_STRIPE, _trade)),
        _scenario(
            "stripe-retry",
            victim=_retry("stripe"),
            clean=(_retry("stripe"), _fetch("stripe")),
            # Objects that fail twice become dead letters.
            steps=(
                _STRIPE,
                _fail_on_customers,
                *(Run(_fetch("stripe"), exit_code=1),) * 2,
                _heal,
            ),
            packages=1,
        ),
    )
}
"""By name."""
