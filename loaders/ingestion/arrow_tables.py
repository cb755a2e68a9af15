"""The landing tables in Arrow: the fields of a row are its columns."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[Any, ...]


class LandedObject(NamedTuple):
    """A row of landed_objects; the payload as text or as UTF-8."""

    idem_key: str
    source_system: str
    connection_name: str
    object_type: str
    external_id: str
    payload: bytes | str | None
    payload_hash: str
    object_created_at: dt.datetime | None
    observed_at: dt.datetime
    is_deleted: bool
    correlation_id: str


class LandedCursor(NamedTuple):
    """A row of cursors."""

    source_system: str
    connection_name: str
    stream: str
    cursor: str
    observed_at: dt.datetime


def schema_of(row: type[Row]) -> pa.Schema:
    """What the fields of a NamedTuple make; what may be None is nullable."""
    import pyarrow as pa

    types = {
        str: pa.string(),
        bytes: pa.string(),
        int: pa.int64(),
        bool: pa.bool_(),
        dt.datetime: pa.timestamp("us", "UTC"),
    }
    kinds = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(row).items()}
    return pa.schema(
        pa.field(name, types[first], nullable=NoneType in (first, *others))
        for name, (first, *others) in kinds.items()
    )


def arrow_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows, each in the order of the schema, as an Arrow table; texts as str or as UTF-8."""
    import pyarrow as pa

    columns = zip(*rows, strict=True)
    arrays = [_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], data_type: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if bytes in set(map(type, values)):
        return _texts(values)
    return pa.array(values, data_type)


def _texts(values: Sequence[bytes | None]) -> pa.StringArray:
    """Texts that are UTF-8 already: joined, which lets other threads run, and not converted one
    by one, which does not and takes three times as long."""
    import pyarrow as pa

    lengths = (len(value or b"") for value in values)
    offsets = pa.array(list(itertools.accumulate(lengths, initial=0)), pa.int32())
    is_there = pa.array([value is not None for value in values])
    data = b"".join([value or b"" for value in values])
    return pa.StringArray.from_buffers(
        len(values), offsets.buffers()[1], pa.py_buffer(data), is_there.buffers()[1]
    )
