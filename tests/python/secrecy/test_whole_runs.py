"""Whole runs: no secret and no content is anywhere but in the warehouse."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import register_secret
from loaders.jobs.event_log import log_event
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import run_main
from tests.python.conftest import Project, event_types, events
from tests.python.oauth_files import (
    client_secrets_info,
    service_account_info,
    write_json,
)
from tests.python.test_authorization import browse

from .conftest import CONTENT, SECRET, WORD, Canaries, bypass_proxies, fault, files_below, leaks

pytestmark = pytest.mark.usefixtures("own_secrets")


ECHO = base64.b64encode(f"rk_test_{WORD}:".encode()).decode()


SAID = f"Bearer ya29.{WORD} {SECRET} Basic {ECHO} {CONTENT}"


FAULTS: dict[str, dict[str, Any]] = {
    "401": {"status": 401, "message": SAID},
    "403": {"status": 403, "reason": "forbidden", "message": SAID},
    "500": {"status": 500, "message": SAID},
    "HTML": {"body": f"<html>{SAID}</html>"},
    "502 text": {"body": SAID, "status": 502},
    "cut off": {"truncate": True},
    "dropped": {"drop": True},
}


@pytest.mark.slow
def test_a_mailbox_s_secrets_and_mail_are_nowhere(
    canaries: Canaries, apis: Sandbox, merge_by_dbt: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = apis.live_ids()[0]
    letter = {"json": {"id": poisoned, "snippet": CONTENT, "sizeEstimate": 10**20}}
    apis.set_faults([{"match": {"id": poisoned}, "times": None, "action": letter}])
    code, said = canaries.run("gmail")
    assert (code, "dead letters" in said) == (1, True)
    assert canaries.run("retry", "gmail")[0] == 1
    for name, action in FAULTS.items():
        fault(apis, "*", action)
        assert canaries.run("gmail")[0] == 1, name
    fault(apis, "token", FAULTS["401"])
    apis.settings(tokens_expired=True)
    assert canaries.run("check", "gmail")[0] == 1
    apis.set_faults([])
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{WORD}@127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__API_BASE_URL", "http://gmail.invalid")
    code, said = canaries.run("gmail")
    assert (code, "by the proxy 127.0.0.1:9 (HTTP_PROXY)" in said) == (1, True)
    monkeypatch.delenv("HTTP_PROXY")
    url = apis.base_url.replace("://", f"://user:{WORD}@")
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__API_BASE_URL", url)
    assert canaries.run("gmail")[0] == 1  # httplib2 takes no user in an address
    canaries.assert_nowhere()


@pytest.mark.slow
def test_a_service_account_s_key_is_nowhere(
    canaries: Canaries,
    apis: Sandbox,
    project: Project,
    merge_by_dbt: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = service_account_info(apis.base_url)
    lines = str(info["private_key"]).splitlines()
    broken = {**info, "private_key": "\n".join([lines[0], WORD * 3, *lines[2:]])}
    (project.dlt_dir / "gmail.acct1.token.json").unlink()
    for key in (info, broken):
        path = write_json(project.directory / "key.json", key)
        monkeypatch.setenv("SOURCES__GMAIL__ACCT1__SERVICE_ACCOUNT_FILE", str(path))
        for command in ("gmail", "check"):
            fault(apis, "token", {"status": 401, "message": f"key {key['private_key']}"})
            assert canaries.run(command, *(["gmail"] if command == "check" else []))[0] != 0
    needles = [lines[1][8:40], lines[2][8:40], WORD]
    assert leaks(canaries.said, *needles) == []
    assert leaks(files_below(project.state_dir, project.duckdb_path.parent), *needles) == []


@pytest.mark.slow
def test_an_account_s_key_and_customers_are_nowhere(
    canaries: Canaries, apis: Sandbox, merge_by_dbt: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = list(apis.stripe_objects("customer").values())[:2]
    for customer in customers:
        customer |= {"email": f"{CONTENT}@example.com", "name": CONTENT, "description": CONTENT}
    customers[1]["balance"] = 10**20  # refused by the gate
    page = {"object": "list", "data": customers, "has_more": False, "url": "/v1/customers"}
    fault(apis, "customers.list", {"json": page})
    objects = ("--objects", "customer,product")
    code, said = canaries.run("stripe", *objects)
    assert (code, "dead letters" in said) == (1, True)
    assert canaries.run("check", "stripe")[0] == 0
    for name, action in FAULTS.items():
        fault(apis, "*", action)
        assert canaries.run("stripe", *objects)[0] == 1, name
    apis.set_faults([])
    bypass_proxies(monkeypatch, "")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{WORD}@127.0.0.1:9")
    monkeypatch.setenv("SOURCES__STRIPE__ACCT1__API_BASE_URL", "http://stripe.invalid")
    code, said = canaries.run("stripe", *objects)
    assert (code, "by the proxy 127.0.0.1:9 (HTTP_PROXY)" in said) == (1, True)
    monkeypatch.setenv("SOURCES__STRIPE__ACCT1__API_BASE_URL", f"http://user:{WORD}@[bad")
    assert canaries.run("stripe", *objects)[0] != 0
    canaries.assert_nowhere()


@pytest.mark.slow
def test_consent_leaves_no_secret_but_in_the_token_s_file(
    canaries: Canaries, apis: Sandbox, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = client_secrets_info(apis.base_url)
    info["installed"]["client_secret"] = f"GOCSPX-{WORD}"
    client = write_json(project.directory / "client.json", info)
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    printed: list[str] = []

    def paste(_: str) -> str:
        printed.append(canaries._capsys.readouterr().out)
        [url] = [line.strip() for line in printed[-1].splitlines() if "/o/oauth2/auth" in line]
        return browse(url)

    monkeypatch.setattr("builtins.input", paste)
    options = ("--no-browser", "--connection", "acct1", "--client-secrets", str(client))
    assert canaries.run("auth", "gmail", *options)[0] == 0
    for action in (*FAULTS.values(), {"json": {"error": SAID, "access_token": 5}}):
        fault(apis, "token", action)
        assert canaries.run("auth", "gmail", *options)[0] != 0
    token = project.dlt_dir / "gmail.acct1.token.json"
    assert WORD in token.read_text()
    assert oct(token.stat().st_mode & 0o777) == "0o600"
    assert leaks({**canaries.said, "prompts": "".join(printed).encode()}, WORD) == []
    others = {k: v for k, v in files_below(project.directory).items() if "gmail.acct1" not in k}
    assert [name for name in leaks(others, WORD) if not name.endswith("client.json")] == []


@pytest.mark.slow
def test_what_a_warehouse_quotes_is_nowhere(
    canaries: Canaries, warehouse: Warehouse, merge_by_dbt: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the gate, as no source can: DuckDB then shows the text that it chokes on.

    dbt's artifacts hold what it says and the arguments, and nobody but a test turns them off.
    """
    monkeypatch.delenv("DBT_WRITE_JSON")
    warehouse.execute(
        "insert into events_staging.landed_objects select 'a:b:c:d', 'a', 'b', 'c', 'd',"
        " ?, 'h', null, now(), false, 'r', 'l1'",
        ('{"id": "' + CONTENT + '", broken',),
    )
    warehouse.execute(
        "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
        " values ('l1', 0, now())"
    )
    arguments = ("--vars", json.dumps({"api_key": f"rk_live_{WORD}"}))
    assert canaries.run("build", "--select", "raw_objects", *arguments)[0] == 1
    assert canaries.run("gmail")[0] == 1
    assert event_types(warehouse).count("job.failed") == 2
    (failed, *_) = [event for event in events(warehouse) if event["status"] == "failed"]
    assert "raw_objects" in failed["error_message"]
    canaries.assert_nowhere()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [(), ("--no-write-json",), ("--write-json",)])
def test_a_build_writes_artifacts_for_who_asks_for_them(
    project: Project,
    warehouse: Warehouse,
    merge_by_dbt: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, ...],
) -> None:
    monkeypatch.delenv("DBT_WRITE_JSON")
    artifacts = [
        PROJECT_DIR / "target" / project.target / f"{name}.json"
        for name in ("run_results", "manifest", "semantic_manifest")
    ]
    for path in artifacts:
        path.unlink(missing_ok=True)
    code, _, err = run_main(capsys, "build", *asked)
    written = [path for path in artifacts if path.exists()]
    for path in written:
        path.unlink()
    assert code == 0, err
    assert written == (artifacts if asked == ("--write-json",) else [])


def test_an_event_that_is_spooled_has_no_secret(
    project: Project, warehouse: Warehouse, apis: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    register_secret(SECRET)
    warehouse.execute("drop table events.event_log")
    warehouse.execute(f"create view events.event_log as select '{CONTENT}' as event_id")
    log_event(
        warehouse,
        "job.failed",
        source_system="acme",
        correlation_id="r",
        error_message=f"refused {SECRET} at http://u:{WORD}@example.test",
        payload={"parameters": [SECRET]},
    )
    spool = files_below(project.state_dir)
    assert len(spool) == 1
    assert leaks(spool, WORD) == []
