"""One run's sync of a mailbox: from history where that suffices, from a snapshot where not.

    no position, or history expired     pin the history id, list everything, read what is not
                                        held, tombstone what is not there; then as below
    a position                          history from there: read what was added, then what was
                                        relabelled, tombstone what was deleted

A snapshot that a run does not finish is gone on with by the next: its position says so, and
history is followed from the pinned id all the same.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
import itertools
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from loaders.objects.items import Cursor, Deleted, Gone, Item, Listed, Observed
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.fetching import ATTACHMENT, LABEL, MESSAGE, Batch, Fetcher
from loaders.sources.gmail.history import ADDED, RELABELLED, REMOVED, Change, Changes, read_changes
from loaders.sources.gmail.identity import check_mailbox
from loaders.sources.gmail.position import BACKFILL, RESYNC, Position
from loaders.sources.gmail.snapshot import Counts, Snapshot
from loaders.sources.refusals import NotFound, RequestRefused

MESSAGES, LABELS = "messages", "labels"
"""Streams: where the history stands; when labels and profile were read last."""
MAX_LISTINGS = 3
"""Of a snapshot in one run."""

_LABEL_STEP = 50
"""Batches of label changes after which the position moves along."""
_MODES = {None: "incremental", BACKFILL: "full", RESYNC: "resync"}


class MailboxSync:
    """What one run does for one mailbox; `items` yields it once."""

    def __init__(
        self, client: GmailClient, pool: concurrent.futures.Executor, request: FetchRequest
    ) -> None:
        self._client = client
        self._config = client.config
        self._request = request
        self._cursor = request.stored.cursor(MESSAGES)
        self._before = Position.read(self._cursor)
        failed = self._before.unfetched if self._before else ()
        self._fetcher = Fetcher(client, pool, request, dict.fromkeys(failed, 1))
        self._removed: set[str] = set()
        self._profile: dict[str, Any] | None = None
        self._has_history = True

    def items(self) -> Iterator[Item]:
        """Yield what changed; raises SourceError and TransientSourceError."""
        position = self._position_to_go_on_from()
        changes = None
        if position is not None and (changes := self._read_history(position)) is None:
            self._request.say("gmail: the stored history id has expired, the mailbox is read whole")
        if position is None or changes is None:
            position = yield from self._pin()
        self._request.outcome.mode = _MODES[position.snapshot]
        if changes is not None:
            if changes.messages or changes.history_id != position.history_id:
                # Before anything of another mailbox is stored, or its history id.
                position = self._checked(position)
            position = yield from self._apply(changes, position)
        if position.snapshot is not None and not self._fetcher.is_bounded:
            position = yield from self._read_snapshot(position)
        self._fetcher.require_an_answer()
        self._request.outcome.unfetched = len(self._fetcher.unfetched)
        is_reading_whole = position.snapshot is not None and self._has_history
        is_unfinished = is_reading_whole or self._request.outcome.deferred > 0
        self._request.outcome.has_more = self._fetcher.is_bounded or is_unfinished
        if self._labels_are_due(changes) and not self._fetcher.is_down:
            yield from self._read_labels(position)

    def _position_to_go_on_from(self) -> Position | None:
        """The stored position, unless it is of another scope, or a full resync is to begin."""
        position = self._before
        if position is None or position.include_spam_trash != self._config.include_spam_trash:
            return None
        is_under_way = position.seen_since is not None
        return None if self._request.options.full_resync and not is_under_way else position

    def _pin(self) -> Generator[Item, None, Position]:
        """Begin a snapshot: the history id is taken before anything is listed."""
        pinned_at = self._request.clock.now()
        profile = self._read_profile()
        if self._before is not None:
            self._checked(self._before)
        is_first = self._request.stored.newest_observation() is None
        position = Position(
            str(profile["historyId"]),
            str(profile.get("emailAddress", "")),
            self._config.include_spam_trash,
            snapshot=BACKFILL if is_first else RESYNC,
            seen_since=pinned_at if self._request.options.full_resync else None,
        )
        yield from self._move(position)
        return position

    def _move(self, position: Position, *, can_wait: bool = False) -> Iterator[Item]:
        """The cursor of a position, when it differs from the last one."""
        unfetched = (*self._waiting(), *self._fetcher.unfetched)
        position = dataclasses.replace(position, unfetched=unfetched)
        if position.label_history_id == position.history_id:
            position = dataclasses.replace(position, label_history_id=None)
        if position.cursor() != self._cursor:
            self._cursor = position.cursor()
            yield Cursor(MESSAGES, self._cursor, self._request.clock.now(), can_wait)

    def _waiting(self) -> list[str]:
        """What earlier runs failed on, and this one has not come to yet."""
        failed = () if self._before is None else self._before.unfetched
        attempted, removed = self._fetcher.attempted, self._removed
        return [key for key in failed if key not in attempted and key not in removed]

    # ---- history

    def _read_history(self, position: Position) -> Changes | None:
        """The changes since a position; None when its history has expired (404), or is refused as
        no other call is (400 and the like)."""
        try:
            return read_changes(self._client.history(self._request, position.start), position)
        except (NotFound, RequestRefused):
            return None

    def _apply(self, changes: Changes, position: Position) -> Generator[Item, None, Position]:
        """Yield what the changes ask for; return the position afterwards."""
        observed_at = self._request.clock.now()
        added, relabelled, removed = map(changes.of_kind, (ADDED, RELABELLED, REMOVED))
        if position.snapshot is None:
            for key in relabelled.keys() - self._held(relabelled):
                added[key] = relabelled.pop(key)  # not stored yet: no mere change of labels
        fetched = self._fetcher.fetched
        added = {
            key: change
            for key, change in added.items()
            if not (change.is_arrival and key in fetched)
        }
        if position.snapshot is not None:
            # What is not held yet is the snapshot's matter.
            held = self._held({**added, **relabelled})
            relabelled = {key: change for key, change in relabelled.items() if key in held}
            added = {
                key: change
                for key, change in added.items()
                if key in held and (position.snapshot == RESYNC or not change.is_arrival)
            }
        self._removed.update(removed)
        yield from self._bury(self._held(removed) | self._dead(removed), observed_at)
        position = yield from self._read_added(changes, added, position)
        if not self._fetcher.is_bounded:
            position = dataclasses.replace(
                position,
                history_id=changes.history_id,
                label_history_id=position.start,
            )
            position = yield from self._read_relabelled(relabelled, position)
        yield from self._settle_gone()
        is_empty = not changes.messages and not changes.label_ids and changes.pages == 1
        yield from self._move(position, can_wait=is_empty and self._is_only_further(position))
        return position

    def _is_only_further(self, position: Position) -> bool:
        """Whether a position differs from that of the last run by where the history stands."""
        before = self._before
        return before is not None and position == dataclasses.replace(
            before, history_id=position.history_id, label_history_id=position.label_history_id
        )

    def _read_added(
        self, changes: Changes, added: dict[str, Change], position: Position
    ) -> Generator[Item, None, Position]:
        """Read what arrived, the position moving along: a killed run repeats a chunk at most."""
        refs = [(key, key) for key in self._waiting() if key not in changes.messages]
        refs += [(key, change.thread_id) for key, change in added.items()]
        batches = self._fetcher.batches(refs)
        steps = _steps(batches, added)
        reached = position

        def advance(done: int) -> Iterator[Item]:
            nonlocal reached
            history_id = steps[done]
            if history_id is not None and int(history_id) > int(reached.history_id):
                reached = dataclasses.replace(
                    reached, history_id=history_id, label_history_id=reached.start
                )
                yield from self._move(reached)

        yield from self._fetcher.run(batches, len(refs), advance)
        return reached

    def _read_relabelled(
        self, relabelled: dict[str, Change], position: Position
    ) -> Generator[Item, None, Position]:
        """Read messages again whose labels changed, as many as the units allow."""
        refs = [(key, change.thread_id) for key, change in relabelled.items()]
        batches = self._fetcher.batches(refs)
        read = 0

        def advance(done: int) -> Iterator[Item]:
            nonlocal read
            read = done
            if done % _LABEL_STEP == 0:
                waiting = [key for batch in batches[done:] for key in batch.message_ids]
                if before := _last_before(relabelled, waiting):
                    yield from self._move(dataclasses.replace(position, label_history_id=before))

        affordable = self._affordable(batches)
        messages = sum(len(batch.message_ids) for batch in affordable)
        yield from self._fetcher.run(affordable, messages, advance)
        left = [key for batch in batches[read:] for key in batch.message_ids]
        self._request.outcome.deferred = len(left)
        reached = _last_before(relabelled, left) or position.label_history_id if left else None
        return dataclasses.replace(position, label_history_id=reached)

    def _affordable(self, batches: list[Batch]) -> list[Batch]:
        if self._config.label_changes == "refetch":
            return batches
        units = self._config.label_change_units
        chosen: list[Batch] = []
        for batch in batches:
            units -= self._fetcher.cost(batch)
            if units < 0 and chosen:  # one at least, or runs would never come to an end
                break
            chosen.append(batch)
        return chosen

    def _bury(self, message_ids: set[str], observed_at: dt.datetime) -> Iterator[Item]:
        """Tombstones of messages that we hold."""
        yield Listed(len(message_ids))
        yield from self._tombstones(message_ids, observed_at)

    def _tombstones(self, message_ids: set[str], observed_at: dt.datetime) -> Iterator[Item]:
        for message_id in sorted(message_ids):
            yield Deleted(MESSAGE, message_id, observed_at)
        attachments = self._request.stored.held(ATTACHMENT) if message_ids else set()
        for external_id in sorted(attachments):
            if external_id.partition(":")[0] in message_ids:
                yield Listed(1)
                yield Deleted(ATTACHMENT, external_id, observed_at, with_owner=True)

    def _settle_gone(self) -> Iterator[Item]:
        """What became of messages that were not there to be read: tombstones of held ones."""
        gone = set(self._fetcher.gone)
        self._fetcher.gone.clear()
        held = self._held(gone)
        for message_id in sorted(gone - held):
            yield Gone(MESSAGE, message_id)
        yield from self._tombstones(held, self._request.clock.now())

    def _held(self, message_ids: Iterable[str]) -> set[str]:
        ids = set(message_ids)
        return self._request.stored.held(MESSAGE, ids) | self._fetcher.fetched.intersection(ids)

    def _dead(self, message_ids: Iterable[str]) -> set[str]:
        """Those among the dead letters: a retry must not bring back what is deleted."""
        ids = set(message_ids)
        return ids & self._request.stored.dead(MESSAGE) if ids else ids

    # ---- snapshot

    def _read_snapshot(self, position: Position) -> Generator[Item, None, Position]:
        """Read what the mailbox has and we do not hold; then the history since it was pinned."""
        observed_at = self._request.clock.now()
        with Snapshot(self._client, self._request) as snapshot:
            self._add_known(snapshot, position)
            is_shifting = not self._list_mailbox(snapshot, position) and self._has_history
            snapshot.leave_out_erased()
            if position.snapshot == RESYNC and position.seen_since is None:
                former = self._request.stored.held(LABEL)
                snapshot.find_relabelled(self._client.label_ids(self._request), former)
            counts = snapshot.choose()
            self._announce(counts)
            yield Listed(counts.listed - counts.wanted, counts.already_held, counts.already_dead)
            missing = snapshot.missing()
            if self._has_history:
                yield from self._bury(set(missing), observed_at)
                missing = []
            # No history says whether the listing has skipped them: they are asked for.
            asked = (Batch(key, (key,)) for key in missing)
            batches = itertools.chain(snapshot.batches(), asked)
            yield from self._fetcher.run(batches, counts.wanted + len(missing))
        yield from self._settle_gone()
        if is_shifting and not (position.is_shifting or self._fetcher.is_bounded):
            # The next run lists again, and ends it: something may be removed all the time.
            position = dataclasses.replace(position, is_shifting=True)
            yield from self._move(position)
            return position
        changes = None if self._fetcher.is_bounded else self._history_during_run(position)
        if changes is None:
            yield from self._move(position)
            return position
        finished = dataclasses.replace(position, snapshot=None, seen_since=None, is_shifting=False)
        return (yield from self._apply(changes, finished))

    def _add_known(self, snapshot: Snapshot, position: Position) -> None:
        """Tell a snapshot what need not be read, or was read in this run."""
        stored, since, fetcher = self._request.stored, position.seen_since, self._fetcher
        snapshot.hold(stored.held_ids(MESSAGE, since))
        snapshot.hold((message_id, True) for message_id in fetcher.fetched)
        snapshot.leave_out(fetcher.failed - fetcher.fetched)
        if since is None:
            snapshot.set_aside(stored.dead(MESSAGE))
        else:  # older ones are tried again, each once
            snapshot.set_aside(
                letter.external_id
                for letter in stored.dead_letters()
                if letter.object_type == MESSAGE and letter.external_id is not None
                if letter.created_at >= since
            )

    def _list_mailbox(self, snapshot: Snapshot, position: Position) -> bool:
        """List until nothing was removed meanwhile; return whether that was so in the end.

        A page skips a message when one before it is removed at that moment, and history says
        nothing of a message to which nothing happened: it would not be read, and a held one
        would be buried for ever. So what is held and not listed is looked for twice.
        """
        position = dataclasses.replace(position, label_history_id=None)
        for number in range(1, MAX_LISTINGS + 1):
            snapshot.list_mailbox()
            changes = self._history_during_run(position)
            if changes is None:
                return False
            if not changes.has_removals and (number > 1 or not snapshot.missing()):
                return True
            position = dataclasses.replace(position, history_id=changes.history_id)
        return False

    def _history_during_run(self, position: Position) -> Changes | None:
        """The history since the mailbox was pinned; None where Gmail does not give it.

        Then the snapshot stays open: what is listed is stored, and the next run lists again.
        """
        changes = self._read_history(position) if self._has_history else None
        if changes is None and self._has_history:
            self._has_history = False
            self._request.outcome.details["without_history"] = True
            self._request.say(
                "gmail: no history is given from the mailbox's own current id: what is listed is"
                " stored, and the next run reads the mailbox whole again"
            )
        return changes

    def _announce(self, counts: Counts) -> None:
        duration = dt.timedelta(seconds=round(60 * counts.units / self._config.units_limit))
        self._request.say(
            f"{counts.listed:,} messages listed, {counts.wanted:,} to fetch: {duration} at"
            f" {self._config.units_limit:,} quota units a minute"
        )

    # ---- labels and profile

    def _labels_are_due(self, changes: Changes | None) -> bool:
        cursor = self._request.stored.cursor(LABELS)
        if cursor is None or changes is None or self._request.outcome.mode != _MODES[None]:
            return True
        # By this machine's clock: after one that was ahead the observations' stands still.
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(cursor["read_at"])
        interval = dt.timedelta(hours=self._config.labels_interval_hours)
        if not dt.timedelta() <= age < interval:
            return True
        return not changes.label_ids <= self._request.stored.held(LABEL, changes.label_ids)

    def _read_labels(self, position: Position) -> Iterator[Item]:
        """Every label as an object, tombstones of those that are gone; the profile's numbers."""
        profile = self._read_profile()
        self._checked(position)
        self._request.outcome.details["mailbox"] = {
            "messages_total": profile.get("messagesTotal"),
            "threads_total": profile.get("threadsTotal"),
        }
        read_at = self._request.clock.now()
        labels = self._client.labels(self._request)
        ids = {value.get("id") for _, value in labels}
        # A mailbox has labels of its own: an answer without them is no reason to bury any.
        # The snapshot's next run looks for messages that are stored with a former label.
        may_bury = bool(ids) and None not in ids and position.snapshot is None
        gone = self._request.stored.held(LABEL) - ids if may_bury else set()
        yield Listed(len(labels) + len(gone))
        for text, value in labels:
            yield Observed(LABEL, text, read_at, value.get("id"))
        for label_id in sorted(gone):
            yield Deleted(LABEL, label_id, read_at)
        yield Cursor(LABELS, {"read_at": read_at.isoformat()}, read_at)

    def _read_profile(self) -> dict[str, Any]:
        if self._profile is None:
            self._profile = self._client.profile(self._request)
        return self._profile

    def _checked(self, position: Position) -> Position:
        """The position, of the mailbox's address today; raises SourceError for another mailbox."""
        return check_mailbox(self._client, self._request, position, self._read_profile())


def _steps(batches: list[Batch], added: dict[str, Change]) -> list[str | None]:
    """For each number of batches done, the newest history id that they cover; None for none.

    A batch may hold messages that changed later than those of the next ones.
    """
    firsts = [
        min((added[key].order for key in batch.message_ids if key in added), default=0)
        for batch in batches
    ]
    records = sorted({change.order: change.record_id for change in added.values()}.items())
    steps: list[str | None] = [None] * (len(batches) + 1)
    position = len(records)
    open_from: int | None = None
    for done in range(len(batches), -1, -1):
        if open_from is not None:
            while position and records[position - 1][0] >= open_from:
                position -= 1
        steps[done] = records[position - 1][1] if position else None
        if done:
            first = firsts[done - 1]
            open_from = first if open_from is None else min(open_from, first)
    return steps


def _last_before(changes: dict[str, Change], left: list[str]) -> str | None:
    """The newest history id before the first change that is left."""
    if not left:
        return None
    first = min(changes[key].order for key in left)
    earlier = [change for change in changes.values() if change.order < first]
    return max(earlier, key=lambda change: change.order).record_id if earlier else None
