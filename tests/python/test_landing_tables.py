"""Rows as Arrow tables: texts that are UTF-8 already, texts that are not, and none."""

from __future__ import annotations

import pyarrow as pa

from loaders.ingestion.arrow_tables import arrow_table

_SCHEMA = pa.schema(
    [pa.field("key", pa.string(), nullable=False), pa.field("payload", pa.string())]
)


def test_utf8_becomes_the_text_that_it_is() -> None:
    texts = ["", "a", None, '{"é": "雪🎈"}', "x" * 100_000, None]
    rows = [("k", None if text is None else text.encode()) for text in texts]
    table = arrow_table(rows, _SCHEMA)
    table.validate(full=True)
    assert table["payload"].to_pylist() == texts
    assert table["payload"].null_count == 2
    assert table.equals(arrow_table([("k", text) for text in texts], _SCHEMA))


def test_a_package_of_tombstones_has_no_text() -> None:
    assert arrow_table([("k", None)] * 3, _SCHEMA)["payload"].null_count == 3
