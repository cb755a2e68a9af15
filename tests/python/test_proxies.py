"""Proxies: nothing that goes to this machine goes by one, and an error says which there was."""

from __future__ import annotations

import os
import types
import urllib.request
from typing import Any

import httplib2
import pytest
import requests

from landfall_sandbox.controls import Sandbox
from loaders.settings.proxies import by_proxy, use_proxies_for_others_alone
from loaders.warehouse.base import Warehouse

from .conftest import run_gmail, run_stripe

NOWHERE = "http://user:hunter22@127.0.0.1:9"
RUNS = {"gmail": run_gmail, "stripe": run_stripe}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for each in ("http", "https", "all", "no"):
        for name in (f"{each}_proxy", f"{each}_proxy".upper()):
            monkeypatch.setenv(name, "")  # so that it is as before afterwards
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("exempt", ["", "intern.example, 10.0.0.1", "*"])
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_this_machine_is_reached_without_a_proxy(
    environment: pytest.MonkeyPatch, name: str, exempt: str
) -> None:
    """By each of the libraries: httplib2 (Gmail), requests (Stripe, tokens), Python's own."""
    environment.setenv(name, NOWHERE)
    if exempt:
        environment.setenv("NO_PROXY", exempt)
    for _again in range(2):
        use_proxies_for_others_alone()
    for host in ("localhost", "127.0.0.1"):
        for scheme in ("http", "https"):
            url = f"{scheme}://{host}:1234"
            assert not requests.utils.get_environ_proxies(url), url
            proxy = httplib2.proxy_info_from_environment(scheme)
            assert proxy is None or proxy.bypass_host(host), url
            assert by_proxy(url, "all") == ""
        assert urllib.request.proxy_bypass(host)
    for host in exempt.replace("*", "").split(", "):
        assert host in (*os.environ.get("no_proxy", "").split(","), "")


@pytest.mark.parametrize("source", RUNS)
def test_the_sandbox_is_reached_where_a_proxy_is_set(
    environment: pytest.MonkeyPatch,
    warehouse: Warehouse,
    sandbox: Sandbox,
    no_build: None,
    source: str,
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        environment.setenv(name, NOWHERE)
    use_proxies_for_others_alone()
    assert RUNS[source](warehouse, sandbox).error is None


@pytest.mark.parametrize("source", RUNS)
def test_an_error_names_the_proxy_without_its_password(
    environment: pytest.MonkeyPatch, warehouse: Warehouse, source: str
) -> None:
    environment.setenv("HTTP_PROXY", NOWHERE)
    use_proxies_for_others_alone()
    elsewhere: Any = types.SimpleNamespace(base_url="http://api.invalid")
    said = str(RUNS[source](warehouse, elsewhere, max_attempts=1).error)
    assert "by the proxy 127.0.0.1:9 (HTTP_PROXY)" in said
    assert "hunter22" not in said
