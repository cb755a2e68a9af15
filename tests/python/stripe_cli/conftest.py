"""What these tests have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox

KEY = "rk_test_canary5e1dDoNotPrint0123456789"


CHARGES = 20


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(size=5, charges=CHARGES, seed=7) as sandbox:
        yield sandbox


@pytest.fixture
def account(server: Sandbox) -> Sandbox:
    """A Stripe account and a mailbox for the tests of this module; leave them as they are."""
    server.set_faults([])
    server.settings(stripe_permissions={}, stripe_clock_offset=0)
    server.reset_stats()
    return server


def set_options(
    monkeypatch: pytest.MonkeyPatch, name: str, source: str = "stripe", **options: Any
) -> None:
    for option, value in options.items():
        variable = f"SOURCES__{source}__{name}__{option}".upper()
        monkeypatch.setenv(variable, str(value))


def connect(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, name: str = "acct1", **options: Any
) -> None:
    """A connection to the account, its waits cut short."""
    own = {"api_key": KEY, "backoff_seconds": 0.001, "max_attempts": 3}
    rates = {"requests_per_second": 100_000, "endpoint_requests_per_second": 100_000}
    own |= {"api_base_url": sandbox.base_url, **rates}
    set_options(monkeypatch, name, **{**own, **options})


@pytest.fixture
def connected(account: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    connect(monkeypatch, account)
    return account


def fault(server: Sandbox, method: str, **action: Any) -> None:
    server.set_faults([{"match": {"method": method}, "action": action, "times": None}])
