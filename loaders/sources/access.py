"""How the commands reach a source: with real credentials, or in the sandbox."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from loaders.settings.connection import Connection
from loaders.settings.places import state_dir
from loaders.sources.check_lines import CheckLines
from loaders.warehouse.base import Warehouse

if TYPE_CHECKING:
    from landfall_sandbox import Sandbox
    from loaders.sources.contract import VerifiableSource


@dataclasses.dataclass(frozen=True)
class Access:
    """What opens a connection's source, and what checks it; each reads its options anew."""

    open_source: Callable[[], VerifiableSource]
    check: Callable[[CheckLines, Callable[[], bool | None]], None]
    """Reports a line for each part; what it is given reports the warehouse in its turn, and
    returns whether that has tables (None: it cannot be reached)."""


@dataclasses.dataclass(frozen=True)
class AccessOptions:
    """What the command line says of access."""

    sandbox_size: int | None = None
    """Messages or charges of a sandbox that is made; None for its default."""
    keep_sandbox: bool = True
    """Keep what the sandbox becomes, for the next run."""
    objects: tuple[str, ...] | None = None
    """Object types to read; None for those that the connection's options say."""


def say_which(connection: Connection, warehouse: Warehouse, instead: str) -> None:
    """Print what is read and where it goes; of the sandbox, what it has `instead` and why."""
    said = f"{connection.source_system} '{connection.name}'"
    if connection.is_sandbox:
        said = f"sandbox, a local server with generated {instead}"
    print(f"connection: {said}\nwarehouse: {warehouse.target.shown}")


@contextlib.contextmanager
def running_sandbox(
    connection: Connection, warehouse: Warehouse, options: AccessOptions
) -> Iterator[Sandbox]:
    """The sandbox of a warehouse and source: what it became in earlier runs is kept."""
    from landfall_sandbox import Sandbox

    source = "" if connection.source_system == "gmail" else f".{connection.source_system}"
    state = state_dir() / "sandbox" / f"{warehouse.target.key}{source}.sqlite"
    if options.keep_sandbox:
        state.parent.mkdir(parents=True, exist_ok=True)
    size: dict[str, Any] = {}
    if options.sandbox_size is not None:
        size = {"size" if connection.source_system == "gmail" else "charges": options.sandbox_size}
    kept = state if options.keep_sandbox or state.exists() else None
    with Sandbox(state=kept, **size) as sandbox:
        yield sandbox
