"""Fixtures: the emulator, one for the session, and a directory for local state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.emulator import Emulator, run_emulator
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The BigQuery emulator, one for the session."""
    try:
        with run_emulator(tmp_path_factory.mktemp("emulator")) as running:
            yield running
    except PeerUnavailable as error:
        unavailable(error)


@pytest.fixture(scope="session")
def peer_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a profile, for local state."""
    directory = tmp_path_factory.mktemp("peers")
    example = Path(__file__).resolve().parents[2] / "profiles.example.yml"
    (directory / "profiles.yml").write_text(example.read_text())
    return directory
