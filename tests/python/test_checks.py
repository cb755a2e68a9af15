"""`run.py check`: one line a part, the next step behind each that fails, and nothing written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.warehouse.base import Warehouse

from .cli.conftest import configure, one_line, run_main
from .cli.test_commands import held_by_another_process
from .conftest import Project, count, run_gmail
from .oauth_files import CANARY, service_account_info, token_info, write_json

pytestmark = pytest.mark.usefixtures("stays_open", "own_secrets")

PARTS = ["credentials", "scope", "mailbox", "quota", "warehouse", "cursor", "alerts"]
OWNER = "sam.rivers@example.com"


@pytest.fixture
def connected(project: Project, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Connection acct1: a stored token, the sandbox's mailbox."""
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__API_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__BACKOFF_SECONDS", "0.001")
    write_json(stored_token(project), token_info(sandbox.base_url))
    return sandbox


def stored_token(project: Project) -> Path:
    return project.dlt_dir / "gmail.acct1.token.json"


class Checked:
    """What the command printed, by part."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code, self.out, self.err = run_main(capsys, "check", *arguments)
        assert CANARY not in self.out + self.err
        lines = [re.fullmatch(r"(\w+) +(ok|FAILED|-) +(.+)", line) for line in self.lines]
        found = [line.groups() for line in lines if line]
        self.parts = [part for part, _, _ in found]
        self.states = {part: state for part, state, _ in found}
        self.texts = {part: text for part, _, text in found}

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def failed(self) -> list[str]:
        return [part for part, state in self.states.items() if state == "FAILED"]


def fault(server: Sandbox, method: str, **action: Any) -> None:
    server.set_faults([{"match": {"method": method}, "action": action, "times": None}])


def test_the_sandbox_is_checked_when_nothing_is_configured(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = Checked(capsys)
    assert (checked.code, checked.err) == (0, "")
    assert checked.lines[0].startswith("connection: sandbox")
    assert checked.parts == PARTS
    assert checked.failed == []
    assert checked.texts["mailbox"] == f"{OWNER}, 250 messages"
    assert "the first run makes them" in checked.texts["warehouse"]
    assert checked.states["cursor"] == "-"
    assert not project.duckdb_path.exists()
    assert not project.state_dir.exists()


def test_a_connection_that_works(
    project: Project, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = Checked(capsys, "gmail", "--connection", "acct1")
    assert (checked.code, checked.err) == (0, "")
    assert checked.texts["credentials"] == f"authorised user, {stored_token(project)}"
    assert checked.texts["scope"] == "gmail.readonly, a message was read, format full"
    assert checked.texts["mailbox"] == f"{OWNER}, 30 messages"
    # 30 messages of 20 units and a page of 5, at 6,000 units a minute.
    assert "preset 'current'" in checked.texts["quota"]
    assert "0:00:07 at most" in checked.texts["quota"]
    assert "none yet" in checked.texts["cursor"]
    assert connected.stats()["requests"] == {
        "token": 1, "getProfile": 1, "messages.list": 1, "messages.get": 1,
    }  # fmt: skip


def test_a_token_that_was_refreshed_is_kept(
    project: Project, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a rotated one would be lost, and with it the connection."""
    write_json(stored_token(project), token_info(connected.base_url, "rotating-check"))
    for _ in range(2):
        assert Checked(capsys).code == 0
        info = json.loads(stored_token(project).read_text())
        write_json(stored_token(project), {**info, "expiry": "2026-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"quota": "legacy"}, "15,000 units a minute (preset 'legacy')"),
        ({"units_per_minute": "100"}, "100 units a minute (units_per_minute)"),
    ],
)
def test_the_quota_in_force_is_told(
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    named: str,
) -> None:
    for name, value in options.items():
        monkeypatch.setenv(f"SOURCES__GMAIL__ACCT1__{name.upper()}", value)
    assert named in Checked(capsys).texts["quota"]


def test_a_revoked_token_fails_and_the_rest_goes_on(
    project: Project, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(stored_token(project), token_info(connected.base_url, "revoked-by-its-owner"))
    checked = Checked(capsys)
    assert (checked.code, checked.err) == (1, "")
    assert checked.failed == ["credentials"]
    assert checked.parts == PARTS
    assert "run.py auth gmail --connection acct1" in checked.texts["credentials"]
    assert (checked.states["scope"], checked.states["mailbox"]) == ("-", "-")
    assert checked.states["warehouse"] == "ok"


def test_broken_credentials_fail_and_the_rest_goes_on(
    project: Project, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_token(project).write_text(f'{{"token": "{CANARY}')
    checked = Checked(capsys)
    assert checked.code == 1
    assert checked.failed == ["credentials"]
    assert checked.parts == PARTS


@pytest.mark.parametrize(
    ("method", "action", "failed", "named"),
    [
        ("getProfile", {"status": 401}, "credentials", "run.py auth"),
        ("getProfile", {"status": 403, "reason": "insufficientPermissions"}, "scope", "the scope"),
        ("messages.get", {"status": 403, "reason": "insufficientPermissions"}, "scope", "scope"),
        ("getProfile", {"status": 403, "reason": "accessNotConfigured"}, "mailbox", "enable"),
        ("getProfile", {"status": 500}, "mailbox", "run again later"),
        ("getProfile", {"drop": True}, "mailbox", "run again later"),
        ("getProfile", {"body": "<html>sign in</html>"}, "mailbox", "api_base_url"),
        pytest.param(  # google-auth waits before it asks for a token again
            "token", {"status": 503}, "credentials", "run again later", marks=pytest.mark.slow
        ),
    ],
)
def test_what_the_api_refuses_is_told_of_the_part_it_is_about(
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    method: str,
    action: dict[str, Any],
    failed: str,
    named: str,
) -> None:
    fault(connected, method, **action)
    checked = Checked(capsys)
    assert (checked.code, checked.err) == (1, "")
    assert checked.failed == [failed]
    assert checked.parts == PARTS
    assert named in checked.texts[failed]


def test_a_service_account_without_delegation_fails(
    project: Project,
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored_token(project).unlink()
    key = write_json(project.directory / "key.json", service_account_info(connected.base_url))
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__SERVICE_ACCOUNT_FILE", str(key))
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__SUBJECT", OWNER)
    checked = Checked(capsys)
    assert checked.code == 0
    assert checked.texts["credentials"] == f"service account for {OWNER}, {key}"
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__SUBJECT", "undelegated@example.com")
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["credentials"])
    assert "delegate the domain" in checked.texts["credentials"]


# ---- warehouse and cursor


def test_a_warehouse_without_runs(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = Checked(capsys)
    assert checked.code == 0
    assert "no run of this connection yet" in checked.texts["warehouse"]
    assert "reads the whole mailbox (full)" in checked.texts["cursor"]
    assert count(warehouse, "events.event_log") == 0


@pytest.mark.slow
def test_a_connection_with_runs(
    warehouse: Warehouse,
    connected: Sandbox,
    core_build: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the cursor stands, and what the next run will do about it."""
    assert run_gmail(warehouse, connected).error is None
    events = count(warehouse, "events.event_log")
    checked = Checked(capsys)
    assert checked.code == 0
    assert re.search(r"last run of .* UTC: completed$", checked.texts["warehouse"])
    assert re.fullmatch(r"history id \d+: the next run is incremental", checked.texts["cursor"])

    connected.settings(history_expired_before=10**9)
    checked = Checked(capsys)
    assert checked.code == 0
    assert "(resync), as Gmail does not keep" in checked.texts["cursor"]
    connected.settings(history_expired_before=None)

    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__INCLUDE_SPAM_TRASH", "true")
    assert "include_spam_trash has changed" in Checked(capsys).texts["cursor"]
    monkeypatch.delenv("SOURCES__GMAIL__ACCT1__INCLUDE_SPAM_TRASH")

    other = {"mutate": {"set": {"emailAddress": "bea@example.com"}}}
    fault(connected, "getProfile", **other)
    assert Checked(capsys).code == 0  # its messages are there
    gone = {"status": 404, "reason": "notFound"}
    connected.set_faults(
        [
            {"match": {"method": "getProfile"}, "action": other},
            {"match": {"method": "messages.get"}, "times": None, "skip": 1, "action": gone},
        ]
    )
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["cursor"])
    assert "another mailbox" in checked.texts["cursor"]

    fault(connected, "getProfile", status=401)
    assert run_gmail(warehouse, connected, include_spam_trash=True).error is not None
    checked = Checked(capsys)
    assert "failed, see run.py status" in checked.texts["warehouse"]
    assert re.fullmatch(r"history id \d+: the next run is incremental", checked.texts["cursor"])
    assert count(warehouse, "events.event_log") == events + 3


def test_a_file_held_by_another_process_fails(
    warehouse: Warehouse,
    project: Project,
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with held_by_another_process(project.duckdb_path):
        checked = Checked(capsys, "--lock-wait", "0s")
    assert (checked.code, checked.failed) == (1, ["warehouse"])
    assert "--lock-wait" in checked.texts["warehouse"]
    assert checked.states["cursor"] == "-"


def test_a_warehouse_that_could_not_be_made_fails(
    project: Project,
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = project.directory / "missing"
    monkeypatch.setenv("LANDFALL_DUCKDB_PATH", str(missing / "landfall.duckdb"))
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["warehouse"])
    assert f"{missing}: does not exist" in checked.texts["warehouse"]
    assert not missing.exists()


def test_a_file_that_is_no_warehouse_fails(
    project: Project, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    project.duckdb_path.write_text("not a database " * 1000)
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["warehouse"])
    assert "cannot be opened" in checked.texts["warehouse"]


# ---- configuration


@pytest.mark.parametrize(
    ("text", "arguments", "named"),
    [
        ("", ["--connection", "nowhere"], "no connection 'nowhere'"),
        ("[sources.gmail.one]\n[sources.gmail.two]\n", [], "one, two"),
        ("[sources.gmail.one\n", [], "secrets.toml"),
        ("", ["--target", "nowhere"], "'nowhere'"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_2(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    text: str,
    arguments: list[str],
    named: str,
) -> None:
    configure(project, text)
    code, out, err = run_main(capsys, "check", *arguments)
    assert code == 2
    assert named in one_line(err)
    assert not any(line.startswith("credentials") for line in out.splitlines())


def test_a_wrong_option_is_one_line_and_exit_2(
    connected: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__QUOTA", "most")
    code, _, err = run_main(capsys, "check")
    assert code == 2
    assert "sources.gmail.acct1.quota" in one_line(err)


def test_there_is_no_consent_to_ask_for_of_stripe(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "auth", "stripe")
    assert code == 2
    assert "invalid choice: 'stripe'" in err


@pytest.mark.slow
def test_check_in_a_process_of_its_own(project: Project) -> None:
    done = project.run_cli("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{OWNER}, 250 messages" in done.stdout
    assert not project.duckdb_path.exists()
