"""What all tests share: the BigQuery emulator, GoogleSQL's analyzer, runs that merge alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from loaders.settings.target import Target
from loaders.transform import dbt_build
from tests.peers.emulator import Emulator, run_emulator
from tests.peers.gate import Gate
from tests.peers.googlesql import run_analyzer
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable

_TESTS = Path(__file__).parent
_EXTENDED = (
    "python/test_sandbox*.py",
    "python/test_dashboard.py",
    "python/test_kill_*.py",
    "python/test_*_property.py",
    "python/test_upgrade.py",
    "peers/**/*.py",
)
_EMULATOR_SMOKE = _TESTS / "peers" / "test_bigquery.py"
_SPREAD = (
    "gmail_sync/test_failures.py",
    "gmail_sync/test_mailbox.py",
    "stripe_sync/test_bounds.py",
    "stripe_sync/test_changes.py",
    "test_sandbox_changes.py",
    "test_sandbox_stripe_changes.py",
)
"""Files of many tests with no fixture that is dear to make twice."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves to `make test-all`; the emulator's twins have the mark."""
    extended = {path for pattern in _EXTENDED for path in _TESTS.glob(pattern)}
    for item in items:
        if item.path in extended - {_EMULATOR_SMOKE}:
            item.add_marker(pytest.mark.extended)


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` a file stays on one worker; the tests of some come last, one by one,
    so that no worker is idle while another has a long file left."""
    if config.option.dist != "loadfile":
        return None
    scheduler = LoadFileScheduling(config, log)
    file_of = scheduler._split_scope
    scheduler._split_scope = lambda nodeid: (
        nodeid if file_of(nodeid).endswith(_SPREAD) else file_of(nodeid)
    )
    return scheduler


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


@pytest.fixture
def merge_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs build raw_objects and test nothing, which takes half as long: for what a sync brings."""
    build = dbt_build.build
    models = ["stg_landed_objects", "raw_objects"]

    def build_raw_objects(
        target: Target, correlation_id: str, arguments: Sequence[str] = (), **options: Any
    ) -> dbt_build.BuildResult:
        selection = ("--select", *models, "--exclude-resource-type", "test", "unit_test")
        models[:] = ["raw_objects"]  # the view is there from now on
        return build(target, correlation_id, (*arguments, *selection), **options)

    monkeypatch.setattr(dbt_build, "build", build_raw_objects)
