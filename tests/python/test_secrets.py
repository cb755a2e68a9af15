"""Canaries in every credential and in objects: no log, event, exception or file shows one.

`test_stripe_cli.py`, `test_gmail_credentials.py` and `test_authorization.py` have what a command
prints of one credential; here whole directories are read, byte by byte, and encoded forms as well.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from landfall_sandbox.controls import Sandbox
from loaders import errors
from loaders.cli import build
from loaders.cli.log_lines import configure_logging
from loaders.errors import MAX_MESSAGE, WarehouseError, redact, register_secret
from loaders.jobs.event_log import log_event
from loaders.settings.places import PROJECT_DIR
from loaders.settings.target import load_target
from loaders.transform import invocation
from loaders.warehouse.base import Warehouse

from .conftest import Project, event_types, events
from .oauth_files import client_secrets_info, service_account_info, token_info, write_json
from .test_authorization import browse
from .test_cli import run_main

pytestmark = pytest.mark.usefixtures("own_secrets")

WORD = "cAn4ry77c1e0Secret"
"""In every secret; what stands around it differs."""
SECRET = f"1//{WORD}/a+b=c"
CONTENT = "cAn4ryDearDiary"
"""In every object."""


def forms(canary: str) -> list[bytes]:
    """The canary as it is, and inside base64 at each of the three offsets."""
    found = [canary.encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + canary.encode())
        found.append(encoded[4 if offset else 0 : -4])
    return found


def leaks(texts: Mapping[str, bytes], *canaries: str) -> list[str]:
    """Names of the texts that hold a canary in any form."""
    needles = [form for canary in canaries for form in forms(canary)]
    return [name for name, text in texts.items() if any(needle in text for needle in needles)]


def files_below(*directories: Path) -> dict[str, bytes]:
    """What every file holds, its name included."""
    found = {}
    for directory in directories:
        for path in directory.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path)] = str(path).encode() + b"\n" + path.read_bytes()
    return found


def tables(warehouse: Warehouse, *without: str) -> dict[str, bytes]:
    """Every row of every table, as text each, but for the columns named `table.column`."""
    found = {}
    for schema, table in warehouse.execute(
        "select table_schema, table_name from information_schema.tables"
        " where table_type = 'BASE TABLE'"
    ):
        left_out = [name.split(".")[1] for name in without if name.split(".")[0] == table]
        excluded = f"exclude ({', '.join(left_out)})" if left_out else ""
        rows = warehouse.execute(f'select * {excluded} from "{schema}"."{table}"')
        found[f"{schema}.{table}"] = json.dumps(rows, default=str).encode()
    return found


def test_a_scan_sees_a_canary_in_any_form() -> None:
    for text in (
        SECRET,
        urllib.parse.quote(SECRET, safe=""),
        json.dumps({"token": SECRET}),
        *(base64.b64encode(f"{'x' * n}{SECRET}:".encode()).decode() for n in range(4)),
        *(base64.urlsafe_b64encode(f"{'x' * n}{SECRET}:".encode()).decode() for n in range(4)),
    ):
        assert leaks({"it": b"some " + text.encode() + b" text"}, WORD) == ["it"]
    assert leaks({"it": b"some text"}, WORD) == []


# ---- what is blanked, and what stays


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote_plus(SECRET),
        json.dumps(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"{SECRET}:".encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
    ids=["plain", "quoted", "form", "JSON", "base64", "basic", "base64url"],
)
def test_a_registered_secret_is_blanked_however_it_is_written(written: str) -> None:
    register_secret(SECRET)
    text = redact(f"POST refused: x={written}, try again")
    assert leaks({"it": text.encode()}, WORD) == []
    assert text.startswith("POST refused: ")
    assert text.endswith(", try again")


@pytest.mark.parametrize(
    "message",
    [
        f"Unable to find the server at http://user:{WORD}@proxy.example:8080/x",
        f"InvalidProxyURL: it is malformed: http://{WORD}@",
        f"url: /v1/charges?limit=100&api_key={WORD}&expand=x (Caused by timeout)",
        f"url: /files/x?X-Goog-Signature={WORD}&x=1",
        f"GET /?state=x&code=4/0A{WORD} refused",
        f"body: grant_type=refresh_token&client_secret={WORD}&refresh_token={WORD}",
        f'got {{"client_secret": "{WORD}", "x": 1}}',
        f"got {{'refresh_token': '{WORD}', 'x': 1}}",
        f'got {{\\"private_key\\": \\"{WORD}\\"}}',
        f"got {{'private_key': '-----BEGIN PRIVATE KEY-----\\n{WORD}\\n{WORD}",
        f"headers: {{'Authorization': 'Basic {base64.b64encode(WORD.encode()).decode()}'}}",
        f"Authorization: Bearer ya29.{WORD}",
        f"key rk_live_{WORD} is not accepted",
        f"assertion=eyJhbGciOiJSUzI1NiJ9.eyJ{WORD}.{WORD}-x_y",
        f"client GOCSPX-{WORD}",
    ],
)
def test_what_libraries_quote_of_credentials_is_blanked(message: str) -> None:
    assert leaks({"it": redact(message).encode()}, WORD) == []
    # Once more changes nothing: what is logged may be logged again, as JSON.
    assert redact(redact(message)) == redact(message)
    as_json = json.dumps({"message": redact(message)})
    assert json.loads(errors.without_secrets(as_json)) == {"message": redact(message)}


@pytest.mark.parametrize(
    "message",
    [
        'gmail: history 123 expired (404); run "run.py gmail --full-resync"',
        "sources.stripe.acct1.api_key: not set; put a restricted key with read permissions into"
        " .dlt/secrets.toml, or SOURCES__STRIPE__ACCT1__API_KEY",
        "gmail: connection 'a' has an access_token, which is used before any other credentials",
        "sources.gmail.a.access_token: expected a text",
        "RefreshError: ('invalid_grant: Token has been expired or revoked.', {'error':"
        " 'invalid_grant', 'error_description': 'Token has been expired or revoked.'})",
        "HTTPSConnectionPool(host='api.stripe.com', port=443): Max retries exceeded with url:"
        " /v1/charges?limit=100&starting_after=ch_1 (Caused by NewConnectionError('refused'))",
        'Catalog Error: Table with name raw_objects does not exist! Did you mean "x.raw_objects"?',
        "Constraint Error: Duplicate key: the primary key is violated",
        "gmail: messages.list repeats a page token, its listing has no end; run again",
        "https://gmail.googleapis.com/gmail/v1/users/ann@example.com/messages answered 404",
        "docs: see basic information on bearer authentication at https://example.test/a?x=1",
        "/home/ann/.dlt/gmail.a.token.json: expected a JSON object",
        "exit code=1, error code: resource_missing",
    ],
)
def test_what_tells_what_to_do_stays(message: str) -> None:
    assert redact(message) == message


@pytest.mark.parametrize(
    "expression",
    ["cast(? as integer)", "cast(? as timestamp)", "cast(? as json)", "cast(? as date)"],
)
def test_what_duckdb_quotes_of_a_value_is_left_out(project: Project, expression: str) -> None:
    with pytest.raises(WarehouseError) as raised:
        project.open_warehouse().execute(f"select {expression}", ('{"' + CONTENT,))
    assert CONTENT not in str(raised.value)
    assert "Error: " in str(raised.value)


@pytest.mark.parametrize(
    ("message", "left"),
    [
        (f"BadRequest: 400 Bad int64 value: {CONTENT}", "BadRequest: 400 Bad int64 value: …"),
        (f"syntax error; last read: '\"{CONTENT}'", "syntax error; last read: …"),
        (f'Failed to parse input string "{CONTENT}"', "Failed to parse input string …"),
        (f"Invalid timestamp: '{CONTENT}'; at [1:8]", "Invalid timestamp: …"),
    ],
)
def test_what_bigquery_quotes_of_a_value_is_left_out(message: str, left: str) -> None:
    assert redact(message) == left


def test_a_secret_at_the_end_of_a_long_message_is_not_cut_into_sight() -> None:
    register_secret(SECRET)
    for length in range(MAX_MESSAGE - 30, MAX_MESSAGE + 5):
        text = redact("x" * length + SECRET)
        assert leaks({"it": text.encode()}, WORD[:8]) == []
        assert len(text) <= MAX_MESSAGE


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_other_libraries_log_is_blanked(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    """urllib3 and google-auth warn with addresses; a value may be in the arguments alone."""
    register_secret(SECRET)
    with _own_logging():
        configure_logging(log_format, debug=True)
        logging.getLogger("urllib3").warning("retry at %s", f"http://u:{WORD}@proxy.example/x")
        logging.getLogger("any").error("refused %r", {"refresh_token": SECRET})
        try:
            raise ValueError(SECRET) from KeyError(f"client_secret={WORD}")
        except ValueError:
            logging.getLogger("landfall").exception("failed", stack_info=True)
    err = capsys.readouterr().err
    assert leaks({"err": err.encode()}, WORD) == []
    assert "http://***@proxy.example/x" in err
    assert "Traceback" in err
    if log_format == "json":
        assert len([json.loads(line) for line in err.splitlines()]) == 3


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers, root.level
    try:
        yield
    finally:
        root.handlers, root.level = before


def test_an_event_s_payload_is_blanked_and_stays_json(warehouse: Warehouse) -> None:
    """job.started carries what the command line says, dbt's --vars among it."""
    register_secret(SECRET)
    parameters = ["--vars", json.dumps({"api_key": WORD, "b": [SECRET]}), f'token={WORD}"\\']
    log_event(
        warehouse,
        "job.started",
        source_system="dbt",
        correlation_id="r",
        payload={"parameters": {"dbt_arguments": parameters, SECRET: 1}},
    )
    [event] = events(warehouse)
    assert event["payload"]["parameters"]["dbt_arguments"][0] == "--vars"
    assert leaks({"event": json.dumps(event, default=str).encode()}, WORD) == []


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["--vars", f"{{pin: {WORD}, days: 3}}"], ["--vars", "{pin: ***, days: ***}"]),
        ([f"--vars={{pin: [{WORD}]}}", "-s", "x"], ["--vars={pin: ***}", "-s", "x"]),
        (["--vars", f"pin: {{deep: {WORD}}}"], ["--vars", "{pin: ***}"]),
        (["--vars", f"{{pin: {WORD}"], ["--vars", "***"]),
        (["--vars", ""], ["--vars", "***"]),
        (["--select", "a", "--vars"], ["--select", "a", "--vars"]),
    ],
)
def test_of_variables_the_names_alone_are_shown(
    own_secrets: None, typed: list[str], shown: list[str]
) -> None:
    assert build._with_names_of_vars(typed) == shown
    assert leaks({"it": errors.without_secrets(" ".join(typed)).encode()}, WORD) == []


@pytest.mark.slow
def test_a_variable_s_value_is_nowhere(
    warehouse: Warehouse, project: Project, own_secrets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--vars", f"{{harmless: {WORD}, pin: 7351}}", "--select", "accepted_violations")
    code, out, err = run_main(capsys, "build", *asked)
    assert code == 0, err
    told = {"said": (out + err).encode(), **files_below(project.state_dir)}
    told["log"] = json.dumps(events(warehouse), default=str).encode()
    assert leaks(told, WORD) == []
    assert leaks(told, "'pin': 7351") + leaks(told, "pin: 7351") == []


def test_a_path_is_shown_and_a_value_is_not() -> None:
    said = invocation._without_values(
        "[Errno 30] Read-only file system: '/srv/target/manifest.json' of 'dear diary'"
        ' IO Error: Cannot open file "/srv/it.duckdb": Read-only, "dear diary"'
    )
    assert "/srv/target/manifest.json" in said
    assert "/srv/it.duckdb" in said
    assert "diary" not in said


def test_a_wrong_command_line_is_not_repeated_with_its_key(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["stripe", f"--api-key=sk_live_{WORD}"],
        ["stripe", "--since", f"sk_live_{WORD}"],
        ["check", f"sk_live_{WORD}"],
    ):
        code, out, err = run_main(capsys, *arguments)
        assert code == 2
        assert leaks({"out": (out + err).encode()}, WORD) == []


# ---- a profile's secrets


@pytest.mark.parametrize("is_text", [False, True], ids=["mapping", "text"])
def test_every_secret_of_a_target_is_known(project: Project, is_text: bool) -> None:
    key = f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY-----\n"
    info = {**service_account_info("https://example.test"), "private_key": key}
    output = {
        "type": "bigquery",
        "method": "service-account-json",
        "project": "p",
        "dataset": "events",
        "keyfile_json": json.dumps(info) if is_text else info,
    }
    profile = yaml.safe_load(project.profiles.read_text())
    profile["landfall"]["outputs"]["json"] = output
    profile["landfall"]["outputs"]["oauth"] = {
        **{name: output[name] for name in ("type", "project", "dataset")},
        "method": "oauth-secrets",
        **{name: f"{name}-{WORD}" for name in ("token", "refresh_token", "client_secret")},
    }
    project.profiles.write_text(yaml.safe_dump(profile))
    load_target("json")
    for text in (key, json.dumps(key), f"refused {key.splitlines()[1]} there"):
        assert leaks({"it": errors.without_secrets(text).encode()}, WORD) == []
    load_target("oauth")
    for name in ("token", "refresh_token", "client_secret"):
        assert redact(f"refused {name}-{WORD}") == "refused ***"


# ---- whole runs


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(size=4, charges=8, seed=7) as sandbox:
        subject = f"Subject: {CONTENT}\r\nFrom: {CONTENT} <{CONTENT}@example.com>\r\n\r\n"
        sandbox.insert(f"{subject}{CONTENT}\r\n".encode(), labels=["INBOX"])
        yield sandbox


@pytest.fixture
def apis(
    server: Sandbox,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Sandbox:
    """Both sources, a canary in each of their credentials, in addresses and in proxies."""
    server.set_faults([])
    server.settings(tokens_expired=False)
    token = token_info(
        server.base_url, SECRET, token=f"ya29.{WORD}", client_secret=f"GOCSPX-{WORD}"
    )
    write_json(project.dlt_dir / "gmail.acct1.token.json", token)
    options = {
        "GMAIL__ACCT1": {"api_base_url": server.base_url, "units_per_minute": 10**7},
        "STRIPE__ACCT1": {
            "api_key": f"rk_test_{WORD}",
            "api_base_url": server.base_url.replace("://", f"://user:{WORD}@"),
            "requests_per_second": 100_000,
            "endpoint_requests_per_second": 100_000,
        },
    }
    for section, values in options.items():
        for name, value in {**values, "max_attempts": 2, "backoff_seconds": 0.001}.items():
            monkeypatch.setenv(f"SOURCES__{section}__{name}".upper(), str(value))
    for name in ("https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://user:{WORD}@127.0.0.1:9")
    bypass_proxies(monkeypatch, "127.0.0.1")
    return server


def bypass_proxies(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, hosts)


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


class Canaries:
    """What the commands of a test have printed, and where a canary may not be."""

    def __init__(
        self, project: Project, warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.said: dict[str, bytes] = {}
        self._project = project
        self._warehouse = warehouse
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str]:
        """A command with every line that it can print."""
        formats = (("--debug", "--log-format", "json"), ("--debug",))
        more = formats[len(self.said) % 2]
        code, out, err = run_main(self._capsys, *arguments, *more)
        self.said[f"{len(self.said)} {' '.join(arguments)}: {code}"] = f"{out}\n{err}".encode()
        print(out, err)
        return code, out + err

    def assert_nowhere(self) -> None:
        project = self._project
        assert leaks(self.said, WORD, CONTENT) == []
        directories = (project.state_dir, PROJECT_DIR / "target" / project.target)
        local = files_below(*directories)
        assert any("dbt.log" in name for name in local)
        assert any("pipelines" in name for name in local)
        assert leaks(local, WORD, CONTENT) == []
        # Objects and the letters of what was refused hold content, in that column alone.
        columns = ("raw_objects.payload", "landed_objects.payload", "dead_letters.payload")
        assert leaks(tables(self._warehouse, *columns), WORD, CONTENT) == []
        # Of the secrets not even in rows that were deleted.
        assert leaks(files_below(project.duckdb_path.parent), WORD) == []


@pytest.fixture
def canaries(
    project: Project, warehouse: Warehouse, apis: Sandbox, capsys: pytest.CaptureFixture[str]
) -> Canaries:
    return Canaries(project, warehouse, capsys)


def fault(server: Sandbox, method: str, action: dict[str, Any]) -> None:
    """The token endpoint, asked again after a 401, knows of no mail."""
    no_mail = json.loads(json.dumps(action).replace(CONTENT, ""))
    server.set_faults(
        [
            {"match": {"method": each}, "action": answer, "times": None}
            for each, answer in (("token", no_mail), (method, action))
            if method in ("*", each)
        ]
    )


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


# ---- files of secrets that others can read


def warned(err: str) -> list[str]:
    return [line for line in err.splitlines() if "chmod 600" in line]


@pytest.mark.parametrize("command", ["gmail", "check"])
def test_a_file_of_secrets_that_others_can_read_is_one_line_with_the_fix(
    project: Project,
    apis: Sandbox,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    fault(apis, "*", {"status": 401})
    token = project.dlt_dir / "gmail.acct1.token.json"
    toml = project.dlt_dir / "secrets.toml"
    toml.write_text("")
    toml.chmod(0o640)
    token.chmod(0o604)
    arguments = (command, *(["gmail"] if command == "check" else []))
    [line] = warned(run_main(capsys, *arguments)[2])
    assert line.startswith("warning: ")
    assert line.endswith(f"chmod 600 {toml} {token}")
    toml.chmod(0o600)
    [line] = warned(run_main(capsys, *arguments)[2])
    assert line.endswith(f"chmod 600 {token}")
    token.chmod(0o600)
    assert warned(run_main(capsys, *arguments)[2]) == []


@pytest.mark.parametrize("name", ["refresh_token", "keyfile_json"])
def test_a_profile_that_holds_a_secret_is_a_file_of_secrets(
    project: Project,
    apis: Sandbox,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    fault(apis, "*", {"status": 401})
    project.profiles.chmod(0o644)
    profile = yaml.safe_load(project.profiles.read_text())
    output = profile["landfall"]["outputs"][project.target]
    output[name] = "{{ env_var('NAME_OF_A_SECRET', '') }}"
    project.profiles.write_text(yaml.safe_dump(profile))
    assert warned(run_main(capsys, "check", "gmail")[2]) == []
    output[name] = {"private_key": SECRET} if name == "keyfile_json" else SECRET
    project.profiles.write_text(yaml.safe_dump(profile))
    [line] = warned(run_main(capsys, "check", "gmail")[2])
    assert line.endswith(f"chmod 600 {project.profiles}")


def test_who_is_told_is_a_secret_too(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.dlt_dir.mkdir(exist_ok=True)
    toml = project.dlt_dir / "secrets.toml"
    toml.write_text('[alerts]\nurls = ["json://127.0.0.1:9/"]\n')
    toml.chmod(0o640)
    [line] = warned(run_main(capsys, "alert")[2])
    assert line == f"warning: others on this machine can read secrets of alerts: chmod 600 {toml}"


@pytest.mark.parametrize("option", ["token_file", "service_account_file", "keyfile"])
def test_a_key_file_s_mode_is_looked_at_wherever_it_is(
    project: Project,
    apis: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    fault(apis, "*", {"status": 401})
    path = write_json(project.directory / "a key's file.json", {})
    path.chmod(0o644)
    if option == "keyfile":
        profile = yaml.safe_load(project.profiles.read_text())
        profile["landfall"]["outputs"][project.target]["keyfile"] = str(path)
        project.profiles.write_text(yaml.safe_dump(profile))
    else:
        monkeypatch.setenv(f"SOURCES__GMAIL__ACCT1__{option}".upper(), str(path))
    [line] = warned(run_main(capsys, "check", "gmail")[2])
    assert line.endswith(f"chmod 600 '{project.directory}/a key'\"'\"'s file.json'")
