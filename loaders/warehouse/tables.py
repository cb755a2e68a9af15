"""The tables that jobs write, as the project's YAML documents them."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from loaders.settings.places import PROJECT_DIR

_MODELS = PROJECT_DIR / "models"
_DOC_BLOCK = re.compile(r"{% docs (\w+) %}(.*?){% enddocs %}", re.DOTALL)
_DOC = re.compile(r"{{ doc\('(\w+)'\) }}")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column as it is documented; its data type in the project's words."""

    name: str
    data_type: str
    description: str
    is_required: bool
    compression: str | None


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a table is partitioned and clustered, where the warehouse has such things."""

    partition_by: str
    granularity: str
    cluster_by: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as it is documented."""

    name: str
    is_staging: bool
    """Whether it is in the landing dataset."""
    columns: Sequence[Column]
    layout: Layout | None


@functools.cache
def documented_tables() -> Sequence[Table]:
    """Each table that jobs write: the project's sources, and raw_objects."""
    docs = dict(_DOC_BLOCK.findall((_MODELS / "_docs.md").read_text()))
    return tuple(
        _table(node, docs, is_staging=is_staging)
        for path in sorted(_MODELS.glob("*/_*.yml"))
        for node, is_staging in _nodes(yaml.load(path.read_text(), Loader=yaml.CSafeLoader))
    )


def _nodes(document: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """What a file documents of tables, and whether that is in the landing dataset."""
    for source in document.get("sources", []):
        is_staging = source["schema"].endswith("_staging")
        yield from ((table, is_staging) for table in source["tables"])
    for model in document.get("models", []):
        if model["name"] == "raw_objects":
            yield model, False


def _table(node: Mapping[str, Any], docs: Mapping[str, str], *, is_staging: bool) -> Table:
    layout = _meta(node).get("layout")
    return Table(
        node["name"],
        is_staging,
        tuple(_column(column, docs) for column in node["columns"]),
        Layout(**layout) if layout else None,
    )


def _column(node: Mapping[str, Any], docs: Mapping[str, str]) -> Column:
    return Column(
        node["name"],
        node["data_type"],
        _DOC.sub(lambda found: docs[found[1]], node["description"]),
        {"type": "not_null"} in node.get("constraints", []),
        _meta(node).get("compression"),
    )


def _meta(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return (node.get("config") or {}).get("meta") or {}
