"""Fixtures: a directory for local state, and datasets of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loaders.settings.target import load_target
from loaders.warehouse.bigquery import BigQueryWarehouse
from tests.peers.emulator import Emulator


@pytest.fixture(scope="session")
def peer_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a profile, for local state."""
    directory = tmp_path_factory.mktemp("peers")
    example = Path(__file__).resolve().parents[2] / "profiles.example.yml"
    (directory / "profiles.yml").write_text(example.read_text())
    return directory


@pytest.fixture
def own_datasets(
    emulator: Emulator, peer_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], BigQueryWarehouse]:
    """The emulator under datasets that no other test uses, nothing in them; takes their name."""

    def use(dataset: str) -> BigQueryWarehouse:
        for name, value in (
            ("DBT_PROFILES_DIR", str(peer_project)),
            ("DLT_PROJECT_DIR", str(peer_project)),
            ("LANDFALL_STATE_DIR", str(tmp_path / "state")),
            ("LANDFALL_EMULATOR_URL", emulator.url),
            ("LANDFALL_BIGQUERY_DATASET", dataset),
        ):
            monkeypatch.setenv(name, value)
        return BigQueryWarehouse(load_target("emulator"))

    return use
