"""Fixtures: a directory for local state."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def peer_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a profile, for local state."""
    directory = tmp_path_factory.mktemp("peers")
    example = Path(__file__).resolve().parents[2] / "profiles.example.yml"
    (directory / "profiles.yml").write_text(example.read_text())
    return directory
