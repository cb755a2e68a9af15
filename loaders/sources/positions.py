"""Where a stream stands, as a dataclass here and as a cursor in the warehouse."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import typing
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class StoredPosition:
    """A position: fields without a default are what makes it one, the others may be left out.

    Fields are JSON's own types, moments, other positions, and tuples of these.
    """

    @classmethod
    def read(cls, cursor: Mapping[str, Any] | None) -> Self | None:
        """The position that a cursor holds; None without one, or when it lacks a field."""
        required, kinds = _fields(typing.cast("Any", cls))
        if cursor is None or not required <= cursor.keys():
            return None
        return cls(**{name: _loaded(cursor[name], kinds[name]) for name in kinds if name in cursor})

    def cursor(self) -> dict[str, Any]:
        """As it is stored: fields that say nothing are left out."""
        values: dict[str, Any] = _dumped(self)
        return values


@functools.cache
def _fields(kind: Any) -> tuple[frozenset[str], dict[str, Any]]:
    """Names of the fields without a default, and the types of all."""
    fields = dataclasses.fields(kind)
    required = (field.name for field in fields if field.default is dataclasses.MISSING)
    hints = typing.get_type_hints(kind)
    return frozenset(required), {field.name: hints[field.name] for field in fields}


def _loaded(value: Any, kind: Any) -> Any:
    kinds = typing.get_args(kind)
    if value is None:
        return None
    if typing.get_origin(kind) is tuple:
        return tuple(_loaded(one, kinds[0]) for one in value)
    if dt.datetime in (kind, *kinds):
        return dt.datetime.fromisoformat(value)
    return kind.read(value) if isinstance(value, Mapping) else value


def _dumped(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _dumped(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.default is dataclasses.MISSING or getattr(value, field.name) != field.default
        }
    if isinstance(value, tuple):
        return [_dumped(one) for one in value]
    return value.isoformat() if isinstance(value, dt.datetime) else value
