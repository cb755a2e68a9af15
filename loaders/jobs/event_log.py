"""The job log: five event types, appended, never changed, never lost.

An event that the warehouse cannot take is spooled to a file, whose name is logged (with the
event itself where log lines are JSON), and replayed before anything else on the next run.
Inserting an event twice is a no-op, so a replay can never double it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import logging
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loaders.errors import PayloadError, WarehouseError, describe, redact, storable, without_secrets
from loaders.objects.payloads import admit
from loaders.settings.constants import constants
from loaders.settings.places import state_dir
from loaders.settings.private_files import made_private
from loaders.warehouse.base import Warehouse

JOB_STARTED = "job.started"
JOB_RUN = "job_run"
MAX_PAYLOAD_BYTES = 16 * 1024
_SET_ASIDE = ".unreadable"

_FIELDS = {
    "event_id", "event_type", "source_system", "connection_name", "object_type",
    "correlation_id", "trace_id", "created_at", "status", "error_message", "payload",
}  # fmt: skip

logger = logging.getLogger(__name__)


class EventNotKept(WarehouseError):
    """Neither the warehouse nor the spool takes an event; it is printed, and that is all."""


@dataclasses.dataclass(frozen=True)
class Spool:
    """Where events wait for a warehouse, and the files there."""

    directory: Path = Path()
    waiting: tuple[Path, ...] = ()
    """The next run writes these events before anything else."""
    set_aside: tuple[Path, ...] = ()
    """What could not be read as an event."""


def trace_id_from_environment() -> str | None:
    """The trace id of TRACEPARENT (W3C Trace Context, traceparent header), if it is set."""
    match = re.fullmatch(constants().traceparent, os.environ.get("TRACEPARENT", ""))
    return match.group(1) if match else None


def log_event(warehouse: Warehouse, event_type: str, **fields: Any) -> str:
    """Append one event and return its event_id; one with an `event_id` that is there is not.

    `fields` are those of `new_event`, which says what is refused. A warehouse that cannot take the
    event is no error: it is spooled. Raises EventNotKept when it cannot be spooled either.
    """
    event = new_event(event_type, **fields)
    log_events(warehouse, [event])
    return str(event["event_id"])


def new_event(
    event_type: str,
    *,
    source_system: str,
    correlation_id: str,
    connection_name: str | None = None,
    object_type: str | None = None,
    trace_id: str | None = None,
    error_message: str | None = None,
    payload: Mapping[str, Any] | None = None,
    created_at: dt.datetime | None = None,
    event_id: str | None = None,
) -> dict[str, str | None]:
    """A row of event_log.

    `status` is `failed` for *.failed events and `ok` otherwise; the error message is
    redacted and cut to 500 characters. Raises ValueError for an unknown event type, a
    missing source_system or correlation_id, a failure without a message, or a payload
    over 16 KB or with what no warehouse keeps (NaN, integers beyond 64 bits).
    """
    failed = event_type.endswith(".failed")
    _check(event_type, source_system, correlation_id, error_message, failed)
    event = {
        "event_id": event_id or str(uuid.uuid4()),
        "event_type": event_type,
        "source_system": source_system,
        "connection_name": connection_name,
        "object_type": object_type,
        "correlation_id": correlation_id,
        "trace_id": trace_id or trace_id_from_environment(),
        "created_at": (created_at or dt.datetime.now(dt.UTC)).isoformat(),
        "status": "failed" if failed else "ok",
        "error_message": redact(error_message) if error_message else None,
        "payload": None if payload is None else _payload_text(event_type, payload),
    }
    # An event that no warehouse takes would be spooled, and keep every later run from beginning.
    return {name: storable(value) if value else value for name, value in event.items()}


@made_private()
def log_events(warehouse: Warehouse, events: Sequence[Mapping[str, Any]]) -> None:
    """Append rows that `new_event` made, in one statement; those that are there are not.

    A warehouse that cannot take them is no error here: they are spooled.
    Raises EventNotKept when they cannot be spooled either.
    """
    try:
        if len(events) == 1:
            warehouse.insert_event(events[0])
        else:
            warehouse.insert_events(events)
    except Exception as error:
        lost: EventNotKept | None = None
        for event in reversed(events):  # the last one says most
            try:
                _spool(warehouse, event, error)
            except EventNotKept as each:
                lost = lost or each
        if lost:
            raise lost from error


def replay_spool(warehouse: Warehouse) -> int:
    """Insert the events that earlier runs had to spool; return how many there were.

    Another process may be at the same: what it has inserted is gone. A file that is no event is
    set aside, with a warning. Raises WarehouseError; events not yet inserted stay in the spool.
    """
    replayed = 0
    for path in spool(warehouse).waiting:
        try:
            event = _read_event(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, RecursionError) as error:
            _set_aside(path, error)
            continue
        warehouse.insert_event(event)
        path.unlink(missing_ok=True)
        replayed += 1
    return replayed


def spool_dir(warehouse: Warehouse) -> Path:
    """Where events wait for this warehouse (LANDFALL_SPOOL_DIR, `.landfall/spool`)."""
    base = os.environ.get("LANDFALL_SPOOL_DIR")
    return (Path(base) if base else state_dir() / "spool") / warehouse.target.key


def spool(warehouse: Warehouse) -> Spool:
    """What is in the spool of this warehouse."""
    directory = spool_dir(warehouse)
    files = (tuple(sorted(directory.glob(f"*{ending}"))) for ending in (".json", _SET_ASIDE))
    return Spool(directory, *files)


def _read_event(path: Path) -> dict[str, Any]:
    """An event as `_spool` wrote it. Raises OSError, or what reading something else raises."""
    event: dict[str, str | None] = json.loads(path.read_text())
    # What earlier releases have spooled has an idem_key, too: null.
    if (
        {*event} - {"idem_key"} != _FIELDS
        or not event["event_id"]
        or event["event_type"] not in constants().event_types
        or not all(value is None or isinstance(value, str) for value in event.values())
    ):
        raise ValueError("no event")
    dt.datetime.fromisoformat(event["created_at"] or "")
    if event["payload"] is not None:
        admit(event["payload"])
    return event


def _set_aside(path: Path, error: Exception) -> None:
    """Rename a file that is no event: it must hold up no run, and may be all that is left."""
    aside = path.with_name(f"{path.name}{_SET_ASIDE}")
    with contextlib.suppress(OSError):  # a directory that is not ours: it is skipped each time
        path.rename(aside)
    logger.warning(
        "warning: %s cannot be read as an event (%s): set aside as %s; look at it, then remove it",
        path,
        getattr(error, "strerror", None) or type(error).__name__,
        aside.name,
    )


def _check(
    event_type: str,
    source_system: str,
    correlation_id: str,
    error_message: str | None,
    failed: bool,
) -> None:
    if event_type not in (known := constants().event_types):
        raise ValueError(f"event_type: expected one of {', '.join(known)}, got {event_type!r}")
    if not source_system:
        raise ValueError(f"{event_type}: source_system is required")
    if not correlation_id:
        raise ValueError(f"{event_type}: correlation_id is required")
    if failed != bool(error_message):
        raise ValueError(
            f"{event_type}: error_message is {'required' if failed else 'for failures only'}"
        )


def _payload_text(event_type: str, payload: Mapping[str, Any]) -> str:
    """The payload's JSON. Raises ValueError for what a warehouse would refuse, or is too long."""
    plain = _without_secrets(payload)
    text = storable(json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=str))
    size = len(text.encode())
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"{event_type}: payload of {size} bytes, expected at most"
            f" {MAX_PAYLOAD_BYTES}; telemetry only, no object content"
        )
    try:
        admit(text)
    except PayloadError as error:
        raise ValueError(f"{event_type}: payload: {error}") from error
    return text


def _without_secrets(value: Any) -> Any:
    """A value whose texts show no secret: of a command line, for example."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {_without_secrets(key): _without_secrets(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item) for item in value]
    return value


def _spool(warehouse: Warehouse, event: Mapping[str, Any], error: Exception) -> None:
    directory = spool_dir(warehouse)
    line = json.dumps(event)
    path = directory / f"{event['created_at'].replace(':', '')}-{event['event_id']}.json"
    try:
        _write_whole(path, line)
    except OSError as refusal:
        logger.error("event not written: %s", line)  # it is kept nowhere else
        raise EventNotKept(
            f"{event['event_type']}: neither the warehouse nor the spool takes the event"
            f" ({directory}: {refusal.strerror}), it is in the log line above; make room, or set"
            " LANDFALL_SPOOL_DIR, and run again"
        ) from refusal
    # A machine's disk may go with its container; JSON log lines are collected, and have it all.
    why = "" if isinstance(error, WarehouseError) else f": {describe(error)}"
    logger.warning("event not written, spooled to %s%s", path, why, extra={"event": event})


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
