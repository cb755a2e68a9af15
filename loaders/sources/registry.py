"""Which sources there are: every package beside this module, and in the folder LANDFALL_SOURCES.

A source is a package with two modules: `definition`, whose SOURCE says what it is and costs no
import of its client library, and `access`, whose `open_access` opens it. No list names it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pkgutil
from typing import TYPE_CHECKING, Any

from loaders.settings.connection import Connection
from loaders.settings.private_files import warn_of_open_files
from loaders.sources import __path__ as _places
from loaders.sources.definition import Definition

if TYPE_CHECKING:
    from loaders.sources.access import Access, AccessOptions
    from loaders.sources.google_api import Consent
    from loaders.warehouse.base import Warehouse

if _folder := os.environ.get("LANDFALL_SOURCES"):
    _places.append(_folder)

SOURCES = tuple(sorted(found.name for found in pkgutil.iter_modules(_places) if found.ispkg))
"""Source systems that have a command, and marts of their own, tagged with the name."""


@functools.cache
def definition(source_system: str) -> Definition:
    """What a source says of itself. Raises ModuleNotFoundError for a name that is none."""
    found: Definition = _module(source_system, "definition").SOURCE
    return found


def open_access(
    connection: Connection, warehouse: Warehouse, options: AccessOptions
) -> contextlib.AbstractContextManager[Access]:
    """The access to a connection of any source; prints which it is.

    Warns of files with its secrets, or the warehouse's, and of what it stores that others can read.
    """
    warn_of_open_files(connection, warehouse.target)
    opened: contextlib.AbstractContextManager[Access] = _module(
        connection.source_system, "access"
    ).open_access(connection, warehouse, options)
    return opened


def consent_of(source_system: str) -> Consent:
    """What the owner is asked for, of a source whose definition says so."""
    found: Consent = _module(source_system, "consent").CONSENT
    return found


def _module(source_system: str, name: str) -> Any:
    return importlib.import_module(f"loaders.sources.{source_system}.{name}")
