"""Options of a connection, read by the types that its configuration class declares."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from loaders.errors import ConfigError
from loaders.settings.connection import Connection


def read_options(kind: Any, connection: Connection, **fixed: Any) -> dict[str, Any]:
    """The options that are set, of the fields of the dataclass `kind`, and the `fixed` ones.

    Raises ConfigError, naming the option and what is expected of it.
    """
    where = section(connection)
    options = dict(fixed)
    for field in dataclasses.fields(kind):
        if field.name in fixed:
            continue
        is_secret = "secret" in field.metadata
        value = connection.secret(field.name) if is_secret else connection.get(field.name)
        if value is not None and not (is_secret and not value):
            read = _READERS.get(str(field.type), str)
            try:
                options[field.name] = read(value)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{where}.{field.name}: expected {error}") from error
        elif field.default is field.default_factory is dataclasses.MISSING:
            what = field.metadata.get("secret", "it")
            raise ConfigError(
                f"{where}.{field.name}: not set; put {what} into .dlt/secrets.toml, or"
                f" {f'{where}.{field.name}'.replace('.', '__').upper()}"
            )
    return options


def section(connection: Connection) -> str:
    """The section of a connection in dlt's configuration."""
    return f"sources.{connection.source_system}.{connection.name}"


def within(default: Any, least: float, most: float = math.inf) -> Any:
    """A field of a configuration class whose number lies between two, both included."""
    return dataclasses.field(default=default, metadata={"within": (least, most)})


def one_of(default: str, known: Collection[str]) -> Any:
    """A field of a configuration class that takes some words alone."""
    return dataclasses.field(default=default, metadata={"known": tuple(known)})


def secret(what: str) -> Any:
    """A field of a configuration class that no message shows; `what` a person puts there."""
    return dataclasses.field(repr=False, metadata={"secret": what})


def check_options(config: Any, where: str) -> None:
    """Raise ConfigError for the first field whose value is not what `within` or `one_of` say."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        expected = ""
        if "known" in field.metadata and value not in field.metadata["known"]:
            expected = ", ".join(field.metadata["known"])
        least, most = field.metadata.get("within", (-math.inf, math.inf))
        if "within" in field.metadata and not least <= value <= most:
            expected = f"a number from {least:g} {'on' if most == math.inf else f'to {most:g}'}"
        if expected:
            raise ConfigError(f"{where}.{field.name}: expected {expected}, got {value!r}")


def _number(kind: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            number = kind(value)
        except (TypeError, ValueError) as error:
            raise ValueError(name) from error
        if not math.isfinite(number):
            raise ValueError(name)
        return number

    return read


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise ValueError("true or false")
    return known[str(value).lower()]


def _costs(value: Any) -> Mapping[str, int]:
    if isinstance(value, str):  # from the environment
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, Mapping) or not all(
        isinstance(units, int) and units > 0 for units in value.values()
    ):
        raise ValueError("a table of methods and their units, from 1 on")
    return dict(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):  # from the environment, or a single one
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError("a list of names")
    return tuple(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": _number(int, "a whole number"),
    "float": _number(float, "a number"),
    "bool": _flag,
    "Mapping[str, int]": _costs,
    "tuple[str, ...]": _names,
}
