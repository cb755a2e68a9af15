"""How the commands reach a source: with real credentials, or in the sandbox."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from loaders.config import Connection, state_dir
from loaders.private_files import warn_of_open_files
from loaders.warehouse import Warehouse

if TYPE_CHECKING:
    from loaders.sandbox import Sandbox
    from loaders.verifying import VerifiableSource


@dataclasses.dataclass(frozen=True)
class Access:
    """What opens a connection's source, and what checks it; each reads its options anew."""

    open_source: Callable[[], VerifiableSource]
    check: Callable[[], bool]


@dataclasses.dataclass(frozen=True)
class AccessOptions:
    """What the command line says of access."""

    sandbox_size: int | None = None
    """Messages or charges of a sandbox that is made; None for its default."""
    keep_sandbox: bool = True
    """Keep what the sandbox becomes, for the next run."""
    objects: tuple[str, ...] | None = None
    """Object types to read; None for those that the connection's options say."""


def open_access(
    connection: Connection, warehouse: Warehouse, options: AccessOptions
) -> contextlib.AbstractContextManager[Access]:
    """The access to a connection of any source; prints which it is.

    Warns of files with its secrets, or the warehouse's, and of what it stores that others can read.
    """
    warn_of_open_files(connection, warehouse.target)
    if connection.source_system == "stripe":
        from loaders.sources.stripe.access import stripe_access

        return stripe_access(connection, warehouse, options)
    from loaders.sources.gmail.access import gmail_access

    return gmail_access(connection, warehouse, options)


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
    from loaders.sandbox import Sandbox

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
