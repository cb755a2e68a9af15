"""What check says of an account."""

from __future__ import annotations

import json
import re

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.sources.stripe.kinds import KINDS
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import configure, one_line, run_main
from tests.python.conftest import Project, event_types, events

from .conftest import KEY, fault, set_options

pytestmark = [
    pytest.mark.usefixtures("core_build", "stays_open", "own_secrets"),
    pytest.mark.timeout(300),
]


PARTS = ["key", "account", "permissions", "limits", "warehouse", "cursor", "alerts"]


def test_no_key_is_one_line_with_the_next_step(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_options(monkeypatch, "acct1", workers=3)
    code, _, err = run_main(capsys, "stripe")
    assert code == 2
    line = one_line(err)
    assert "sources.stripe.acct1.api_key" in line
    assert "SOURCES__STRIPE__ACCT1__API_KEY" in line
    assert event_types(warehouse)[-1] == "job.failed"


@pytest.mark.parametrize(
    "key",
    [
        "pk_live_canary5e1dDoNotPrint0123",
        "pk_test_canary5e1dDoNotPrint0123",
        "whsec_canary5e1dDoNotPrint0123",
        "canary5e1dDoNotPrint0123",
        f'"{KEY}"',
        "acct_canary5e1dDoNotPrint0123",
    ],
)
def test_what_is_no_key_is_refused_and_not_printed(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    set_options(monkeypatch, "acct1", api_key=key)
    for command in ("stripe", "check"):
        code, out, err = run_main(capsys, command)
        assert code == (2 if command == "stripe" else 1)
        said = one_line(err) if command == "stripe" else out
        assert "api_key" in said
        assert "sk_" in said
        assert "rk_" in said
        assert "canary5e1d" not in out + err
    assert "canary5e1d" not in json.dumps(events(warehouse), default=str)
    assert connected.stats()["requests"] == {}


@pytest.mark.parametrize(
    "key",
    ["rk_test_canary…5e1d", "rk_test_canary5e1d\u200b", "sk_live_ключ12"],
    ids=["shortened", "copied with an invisible character", "other letters"],
)
def test_a_key_that_no_header_can_carry_is_refused(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    set_options(monkeypatch, "acct1", api_key=key)
    code, out, err = run_main(capsys, "stripe")
    assert code == 2
    assert "sources.stripe.acct1.api_key" in one_line(err)
    assert key not in out + err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workers", "0"),
        ("workers", "many"),
        ("max_attempts", "0"),
        ("objects", "charge,chrage"),
        ("objects", ""),
        ("requests_per_second", "-1"),
        ("endpoint_requests_per_second", "0"),
        ("event_overlap_seconds", "-5"),
        ("max_deletions_percent", "101"),
        ("timeout_seconds", "soon"),
        ("timeout_seconds", "0"),
        ("backoff_seconds", "-1"),
        ("requests_per_second", "nan"),
        ("api_base_url", "api.stripe.com"),
    ],
)
def test_a_wrong_option_is_named(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
) -> None:
    set_options(monkeypatch, "acct1", **{option: value})
    code, _, err = run_main(capsys, "stripe")
    assert code == 2
    line = one_line(err)
    assert "sources.stripe.acct1" in line
    assert option in line


def test_an_unknown_connection_says_where_to_add_it(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "stripe", "--connection", "nowhere")
    assert code == 2
    line = one_line(err)
    assert "configured: acct1" in line
    assert "[sources.stripe.nowhere]" in line
    assert "auth" not in line


def test_several_connections_ask_for_a_choice(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, f'[sources.stripe.one]\napi_key = "{KEY}"\n[sources.stripe.two]\n')
    code, out, err = run_main(capsys, "stripe")
    assert code == 2
    assert "one, two" in one_line(err)
    assert KEY not in out + err


class Checked:
    """What the command printed, by part."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code, self.out, self.err = run_main(capsys, "check", *arguments)
        assert KEY not in self.out + self.err
        found = re.findall(r"(?m)^(\w+) +(ok|FAILED|-) +(.+)$", self.out)
        self.parts = [part for part, _, _ in found]
        self.texts = {part: text for part, _, text in found}
        self.failed = [part for part, state, _ in found if state == "FAILED"]


@pytest.mark.slow
def test_an_account_that_works_is_a_line_a_part(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = Checked(capsys, "stripe")
    assert (checked.code, checked.failed, checked.err) == (0, [], "")
    assert checked.parts == PARTS
    assert "restricted key of test mode" in checked.texts["key"]
    assert checked.texts["account"].startswith("acct_")
    for kind in (*KINDS, "event"):
        assert kind in checked.texts["permissions"]
    assert "full" in checked.texts["cursor"]
    assert event_types(warehouse) == []
    assert run_main(capsys, "stripe")[0] == 0
    assert "incremental" in Checked(capsys, "stripe").texts["cursor"]
    connected.settings(stripe_clock_offset=40 * 86_400)
    said = Checked(capsys).texts["cursor"]
    assert "lists" in said
    assert "charge" in said
    assert "balance_transaction" not in said


def test_the_sandbox_works_and_is_not_kept(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = Checked(capsys, "stripe")
    assert (checked.code, checked.parts, checked.failed) == (0, PARTS, [])
    assert not project.duckdb_path.exists()
    assert not list(project.state_dir.rglob("*.sqlite"))


def test_a_permission_that_is_lacking_is_named(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = [name for name in (*KINDS, "event", "account") if name not in ("dispute", "event")]
    connected.settings(stripe_permissions={KEY: allowed})
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["permissions"])
    said = checked.texts["permissions"]
    for name in ("dispute", "rak_dispute_read", "event", "rak_event_read"):
        assert name in said
    assert "rak_charge_read" not in said


def test_a_key_that_may_not_say_its_account_works(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    connected.settings(stripe_permissions={KEY: [*KINDS, "event"]})
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (0, [])
    assert "may not say" in checked.texts["account"]


@pytest.mark.parametrize(
    "key", ["rk_test_expired0123456789", "rk_unknown_0123456789"], ids=["expired", "unknown"]
)
def test_a_key_that_is_not_accepted_is_what_fails(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    set_options(monkeypatch, "acct1", api_key=key)
    checked = Checked(capsys)
    assert checked.code == 1
    assert checked.failed == ["key"]
    assert "sources.stripe.acct1.api_key" in checked.texts["key"]
    assert checked.texts["permissions"] == checked.texts["cursor"] == "not known, see what failed"
    assert key not in checked.out


def test_a_key_that_is_refused_without_a_reason_is_what_fails(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    fault(connected, "account.get", status=401, body="<html>")
    assert Checked(capsys).failed == ["key"]


def test_an_account_that_is_not_there_is_what_fails(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_options(monkeypatch, "acct1", stripe_account="acct_of_nobody")
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["account"])
    assert "sources.stripe.acct1.stripe_account" in checked.texts["account"]


@pytest.mark.slow
def test_another_account_than_before_is_what_fails(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(capsys, "stripe", "--objects", "product")[0] == 0
    set_options(monkeypatch, "acct1", stripe_account="acct_sandbox_connected")
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["cursor"])
    assert "another account" in checked.texts["cursor"]


def test_a_server_that_is_down_is_tried_twice(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    fault(connected, "*", status=503)
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["account"])
    assert connected.stats()["requests"] == {"account.get": 2}


def test_both_sources_are_checked_when_both_are_configured(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_options(
        monkeypatch, "me", "gmail", access_token="any-token", api_base_url=connected.base_url
    )
    code, out, _ = run_main(capsys, "check")
    assert code == 0
    assert "gmail 'me'" in out
    assert "stripe 'acct1'" in out
    fault(connected, "charges.list", status=403)
    assert run_main(capsys, "check")[0] == 1
    assert run_main(capsys, "check", "gmail")[0] == 0
