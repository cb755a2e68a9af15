"""Where things are on this machine: the project, its state, dlt's configuration."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[2]
PACKAGE_NAME = "landfall"
DEFAULT_LOCK_WAIT = 300.0
"""Seconds to wait for a warehouse file or a connection in use: some fifty short runs."""

TOKEN_FILE = ".token.json"  # noqa: S105 - the end of a file name

# dlt reads these when it is imported.
DLT_SETTINGS = {
    "DLT_PROJECT_DIR": str(PROJECT_DIR),
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    # What it logs as an error it raises too; its log lines quote the warehouse, values included.
    "RUNTIME__LOG_LEVEL": "CRITICAL",
    # Arrow batches get no _dlt_load_id unless asked for.
    "NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID": "true",
    # Payloads would stay in the working directory after they are loaded.
    "LOAD__DELETE_COMPLETED_JOBS": "true",
}


def configure_dlt() -> None:
    """Set dlt's defaults in the environment, where a user has not set them."""
    for name, value in DLT_SETTINGS.items():
        os.environ.setdefault(name, value)


def state_dir() -> Path:
    """Directory for what a run keeps on this machine (LANDFALL_STATE_DIR, `.landfall`)."""
    return Path(os.environ.get("LANDFALL_STATE_DIR", PROJECT_DIR / ".landfall"))


def dlt_dir() -> Path:
    """Where dlt looks for its configuration and secrets, and where tokens are kept."""
    directory = Path(os.environ.get("DLT_PROJECT_DIR", PROJECT_DIR))
    return directory / os.environ.get("DLT_CONFIG_FOLDER", ".dlt")


def token_path(source_system: str, connection_name: str) -> Path:
    """Where `run.py auth` keeps the token of a connection."""
    return dlt_dir() / f"{source_system}.{connection_name}{TOKEN_FILE}"


def shown(path: Path | str) -> str:
    """A path for a person: one below this directory without its beginning."""
    return str(path).removeprefix(f"{os.getcwd()}{os.sep}")
