"""What is blanked, and what stays."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import urllib.parse
from collections.abc import Iterator

import pytest
import yaml

from loaders import errors
from loaders.cli import build
from loaders.cli.log_lines import configure_logging
from loaders.errors import MAX_MESSAGE, WarehouseError, redact, register_secret
from loaders.jobs.event_log import log_event
from loaders.settings.target import load_target
from loaders.transform import invocation
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import run_main
from tests.python.conftest import Project, events
from tests.python.oauth_files import (
    service_account_info,
)

from .conftest import CONTENT, SECRET, WORD, files_below, leaks

pytestmark = pytest.mark.usefixtures("own_secrets")


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
