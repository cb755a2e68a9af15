"""The BigQuery emulator and GoogleSQL's analyzer: each one for the session, where asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.emulator import Emulator, run_emulator
from tests.peers.gate import Gate
from tests.peers.googlesql import run_analyzer
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
def gate(emulator: Emulator) -> Iterator[Gate]:
    """What GoogleSQL says of the statements that this session's emulator is sent."""
    try:
        with run_analyzer() as analyzer:
            yield Gate(emulator, analyzer)
    except PeerUnavailable as error:
        unavailable(error)
