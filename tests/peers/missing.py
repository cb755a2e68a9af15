"""A peer that cannot be had skips its tests, or fails them where it is required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.peers.install import PeerUnavailable

REQUIRED = "LANDFALL_REQUIRE_PEERS"


def unavailable(error: PeerUnavailable) -> NoReturn:
    """Skip with the reason; fail where LANDFALL_REQUIRE_PEERS is set, as CI does."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"a required peer is missing: {error}")
    pytest.skip(f"PEER MISSING, NOT PROVED HERE: {error}")
