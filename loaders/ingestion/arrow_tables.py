"""The landing tables in Arrow, in the order of the tuples that landing collects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

Row = tuple[Any, ...]

_UTC_TIMESTAMP = pa.timestamp("us", "UTC")
LANDED_OBJECTS = pa.schema(
    [
        pa.field("idem_key", pa.string(), nullable=False),
        pa.field("source_system", pa.string(), nullable=False),
        pa.field("connection_name", pa.string(), nullable=False),
        pa.field("object_type", pa.string(), nullable=False),
        pa.field("external_id", pa.string(), nullable=False),
        pa.field("payload", pa.string()),
        pa.field("payload_hash", pa.string(), nullable=False),
        pa.field("object_created_at", _UTC_TIMESTAMP),
        pa.field("observed_at", _UTC_TIMESTAMP, nullable=False),
        pa.field("is_deleted", pa.bool_(), nullable=False),
        pa.field("correlation_id", pa.string(), nullable=False),
    ]
)
CURSORS = pa.schema(
    [
        pa.field("source_system", pa.string(), nullable=False),
        pa.field("connection_name", pa.string(), nullable=False),
        pa.field("stream", pa.string(), nullable=False),
        pa.field("cursor", pa.string(), nullable=False),
        pa.field("observed_at", _UTC_TIMESTAMP, nullable=False),
    ]
)
DEAD_LETTERS = pa.schema(
    [
        pa.field("dead_letter_id", pa.string(), nullable=False),
        pa.field("source_system", pa.string(), nullable=False),
        pa.field("connection_name", pa.string(), nullable=False),
        pa.field("object_type", pa.string(), nullable=False),
        pa.field("external_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("payload", pa.string()),
        pa.field("attempts", pa.int64(), nullable=False),
        pa.field("correlation_id", pa.string(), nullable=False),
        pa.field("created_at", _UTC_TIMESTAMP, nullable=False),
        pa.field("dropped_at", _UTC_TIMESTAMP),
        pa.field("dropped_reason", pa.string()),
    ]
)


def arrow_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows, each in the order of the schema, as an Arrow table; texts as str or as UTF-8."""
    columns = zip(*rows, strict=True)
    arrays = [_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], data_type: pa.DataType) -> pa.Array:
    if bytes in set(map(type, values)):
        return _texts(values)
    return pa.array(values, data_type)


def _texts(values: Sequence[bytes | None]) -> pa.StringArray:
    """Texts that are UTF-8 already: joined, which lets other threads run, and not converted one
    by one, which does not and takes three times as long."""
    lengths = (len(value or b"") for value in values)
    offsets = pa.array(list(itertools.accumulate(lengths, initial=0)), pa.int32())
    is_there = pa.array([value is not None for value in values])
    data = b"".join([value or b"" for value in values])
    return pa.StringArray.from_buffers(
        len(values), offsets.buffers()[1], pa.py_buffer(data), is_there.buffers()[1]
    )
