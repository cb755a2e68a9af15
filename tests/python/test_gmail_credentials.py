"""Credentials of a Gmail connection: which are taken, that refreshed ones last, what is shown."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth.exceptions
import google_auth_httplib2
import httplib2
import pytest

from landfall_sandbox.controls import Sandbox
from loaders import errors
from loaders.errors import ConfigError
from loaders.settings.connection import Connection
from loaders.sources.connections import load_connection
from loaders.sources.gmail.options import API
from loaders.sources.google_credentials import (
    ServiceAccountCredentials,
    UserCredentials,
    find_credentials,
    write_private,
)
from loaders.warehouse.base import Warehouse
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable

from .cli.conftest import one_line, run_main
from .conftest import Project, events
from .oauth_files import CANARY, service_account_info, token_info, write_json

OPTION = "SOURCES__GMAIL__ACCT1__{}"
ACCT1 = Connection("gmail", "acct1")


pytestmark = pytest.mark.usefixtures("own_secrets")


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[Sandbox]:
    yield sandbox
    sandbox.settings(latency=0, tokens_expired=False)


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_options(**options: Any) -> Connection:
        for name, value in options.items():
            monkeypatch.setenv(OPTION.format(name.upper()), str(value))
        return ACCT1

    return set_options


def stored_token(project: Project) -> Path:
    return project.dlt_dir / "gmail.acct1.token.json"


def call(credentials: Any, sandbox: Sandbox) -> int:
    """One API call as a worker thread makes it."""
    http = google_auth_httplib2.AuthorizedHttp(credentials, http=httplib2.Http())
    return int(http.request(f"{sandbox.base_url}/gmail/v1/users/me/profile")[0].status)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


# ---- where they are found


def test_the_first_that_is_configured_is_taken(
    project: Project, configure: Any, monkeypatch: pytest.MonkeyPatch, server: Sandbox
) -> None:
    info = service_account_info(server.base_url)
    key = write_json(project.directory / "key.json", info)
    default = write_json(project.directory / "adc.json", {**info, "client_email": "adc@a.example"})
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(default))
    found = find_credentials(ACCT1, API)
    assert (found.kind, found.origin) == ("application default credentials", str(default))
    configure(service_account_file=key)
    assert find_credentials(ACCT1, API).kind == "service account"
    configure(subject="ann@example.com")
    found = find_credentials(ACCT1, API)
    assert (found.kind, found.origin) == ("service account for ann@example.com", str(key))
    stored = write_json(stored_token(project), token_info(server.base_url))
    assert find_credentials(ACCT1, API).origin == str(stored)
    mine = write_json(project.directory / "mine.json", token_info(server.base_url))
    configure(token_file=mine)
    found = find_credentials(ACCT1, API)
    assert (found.kind, found.origin) == ("authorised user", str(mine))
    configure(access_token="a-ready-token")
    assert find_credentials(ACCT1, API).credentials.token == "a-ready-token"


def test_a_stored_token_makes_a_connection(project: Project, server: Sandbox) -> None:
    for name in ("acct1", "b.c"):
        write_json(project.dlt_dir / f"gmail.{name}.token.json", token_info(server.base_url))
    write_json(project.dlt_dir / "stripe.acct9.token.json", {})
    assert load_connection("gmail", "b.c").name == "b.c"
    with pytest.raises(errors.UsageError, match=r"acct1, b\.c are configured"):
        load_connection("gmail", None)


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("token_file", "{"),
        ("token_file", "[]"),
        ("token_file", f'{{"refresh_token": "{CANARY}"}}'),
        ("token_file", None),
        ("service_account_file", f'{{"private_key": "{CANARY}"}}'),
        ("service_account_file", None),
    ],
)
def test_a_broken_file_is_one_line_with_the_next_step(
    project: Project, configure: Any, option: str, content: str | None
) -> None:
    path = project.directory / "broken.json"
    if content is not None:
        path.write_text(content)
    configure(**{option: path})
    with pytest.raises(ConfigError) as refusal:
        find_credentials(ACCT1, API)
    message = str(refusal.value)
    assert str(path) in message
    assert "acct1" in message
    assert ("run.py auth gmail" in message) == (option == "token_file")
    assert CANARY not in message


def test_no_credentials_at_all_name_the_command(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(**_: Any) -> Any:
        raise google.auth.exceptions.DefaultCredentialsError("nothing")

    monkeypatch.setattr("google.auth.default", find_nothing)
    with pytest.raises(ConfigError, match=r"run\.py auth gmail --connection acct1"):
        find_credentials(ACCT1, API)


# ---- refreshed ones last


def test_a_refreshed_token_is_written_back_to_its_file(
    project: Project, configure: Any, server: Sandbox
) -> None:
    """Also to the user's own, with whatever else is in it."""
    info = token_info(server.base_url, type="authorized_user", quota_project_id="a-project")
    path = write_json(project.directory / "mine.json", info)
    path.chmod(0o644)
    credentials = find_credentials(configure(token_file=path), API).credentials
    assert call(credentials, server) == 200
    after = read(path)
    assert after["token"] == credentials.token != info["token"]
    assert after["expiry"] > info["expiry"]
    kept = {key: value for key, value in after.items() if key not in ("token", "expiry")}
    assert kept == {key: value for key, value in info.items() if key not in ("token", "expiry")}
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert call(find_credentials(ACCT1, API).credentials, server) == 200
    assert server.stats()["requests"] == {"token": 1, "getProfile": 2}


def test_a_rotated_refresh_token_is_what_the_next_run_uses(
    project: Project, server: Sandbox
) -> None:
    path = write_json(stored_token(project), token_info(server.base_url, "rotating-runs"))
    tokens = ["rotating-runs"]
    for _ in range(3):
        credentials = find_credentials(ACCT1, API).credentials
        credentials.expiry = None
        credentials.token = None
        assert call(credentials, server) == 200
        tokens.append(read(path)["refresh_token"])
    assert len(set(tokens)) == 4


def test_a_link_stays_a_link(project: Project, server: Sandbox) -> None:
    real = write_json(project.directory / "vault" / "t.json", token_info(server.base_url))
    path = stored_token(project)
    path.parent.mkdir()
    path.symlink_to(real)
    assert call(find_credentials(ACCT1, API).credentials, server) == 200
    assert path.is_symlink()
    assert read(real)["token"] != token_info(server.base_url)["token"]


def test_threads_that_share_credentials_refresh_once(project: Project, server: Sandbox) -> None:
    """The rotating token is good once: a second refresh of the same would end the run."""
    path = write_json(stored_token(project), token_info(server.base_url, "rotating-threads"))
    credentials = find_credentials(ACCT1, API).credentials
    server.settings(latency=0.05)
    start = threading.Barrier(12)

    def work(_: int) -> int:
        start.wait()
        return call(credentials, server)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert set(pool.map(work, range(12))) == {200}
    assert server.stats()["requests"] == {"token": 1, "getProfile": 12}
    assert read(path)["refresh_token"] == credentials.refresh_token != "rotating-threads"


def test_threads_whose_token_the_api_refuses_do_not_each_refresh(
    project: Project, server: Sandbox
) -> None:
    """Not expired by the clock, but no good any more."""
    path = write_json(stored_token(project), token_info(server.base_url, "rotating-refused"))
    credentials = find_credentials(ACCT1, API).credentials
    assert call(credentials, server) == 200
    server.settings(tokens_expired=True, latency=0.05)
    server.reset_stats()
    start = threading.Barrier(12)

    def work(_: int) -> int:
        start.wait()
        return call(credentials, server)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert set(pool.map(work, range(12))) == {200}
    # One, and one more for each thread that hears of it only after another has refreshed.
    assert server.stats()["requests"]["token"] < 12
    assert read(path)["refresh_token"] == credentials.refresh_token


def test_a_token_that_was_authorised_anew_is_left_alone(project: Project, server: Sandbox) -> None:
    path = write_json(stored_token(project), token_info(server.base_url))
    credentials = find_credentials(ACCT1, API).credentials
    anew = token_info(server.base_url, f"{CANARY}-another-consent")
    write_json(path, anew)
    assert call(credentials, server) == 200
    assert read(path) == anew


def test_a_file_that_cannot_be_written_is_one_warning(
    project: Project,
    server: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_json(stored_token(project), token_info(server.base_url))
    credentials = find_credentials(ACCT1, API).credentials

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    for _ in range(2):
        credentials.token = None
        assert call(credentials, server) == 200
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(path) in record.getMessage()
    assert "PermissionError" in record.getMessage()
    assert CANARY not in caplog.text
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_is_never_readable_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []
    replace = os.replace

    def look(source: str, target: Path) -> None:
        modes.append(oct(Path(source).stat().st_mode & 0o777))
        assert Path(source).parent == tmp_path
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    previous = os.umask(0)
    try:
        write_private(tmp_path / "token.json", "{}")
    finally:
        os.umask(previous)
    assert modes == ["0o600"]


def test_a_file_stays_its_owners_when_root_writes_it(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        unavailable(PeerUnavailable("a file of another's: only root can give files away"))
    path = write_json(tmp_path / "token.json", {})
    os.chown(path, 1234, 1235)
    write_private(path, "{}")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


# ---- service accounts


def test_a_service_account_reads_the_mailbox_of_its_subject(
    project: Project, configure: Any, server: Sandbox
) -> None:
    key = write_json(project.directory / "key.json", service_account_info(server.base_url))
    credentials = find_credentials(
        configure(service_account_file=key, subject="ann@example.com"), API
    ).credentials
    assert isinstance(credentials, ServiceAccountCredentials)
    assert call(credentials, server) == 200
    assert server.stats()["requests"] == {"token": 1, "getProfile": 1}
    token = str(credentials.token)
    assert token not in errors.redact(f"refused {token}")


# ---- what a run says


def test_no_message_shows_what_a_refresh_brought(project: Project, server: Sandbox) -> None:
    path = write_json(stored_token(project), token_info(server.base_url, "rotating-redacted"))
    before = read(path)
    assert call(find_credentials(ACCT1, API).credentials, server) == 200
    for token in (before, read(path)):
        for name in ("token", "refresh_token", "client_secret"):
            assert token[name] not in errors.redact(f"the answer was {token[name]}")


@pytest.mark.parametrize(
    ("refresh_token", "answer", "named"),
    [
        pytest.param(
            "revoked-by-its-owner", None, "the token has expired or was revoked", id="revoked"
        ),
        pytest.param(CANARY, "deleted_client", "the OAuth client was deleted", id="client"),
    ],
)
def test_a_refused_token_is_one_line_with_the_command(
    warehouse: Warehouse,
    project: Project,
    server: Sandbox,
    configure: Any,
    capsys: pytest.CaptureFixture[str],
    refresh_token: str,
    answer: str | None,
    named: str,
) -> None:
    configure(api_base_url=server.base_url)
    write_json(stored_token(project), token_info(server.base_url, refresh_token))
    if answer:
        action = {"status": 401, "reason": answer, "message": CANARY}
        server.set_faults([{"match": {"method": "token"}, "action": action, "times": None}])
    code, out, err = run_main(capsys, "gmail")
    assert code == 1
    line = one_line(err)
    assert named in line
    assert "python loaders/run.py auth gmail --connection acct1" in line
    failed = events(warehouse)[-1]
    assert failed["event_type"] == "job.failed"
    assert named in failed["error_message"]
    assert CANARY not in out + err + json.dumps(events(warehouse), default=str)


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        pytest.param("undelegated@example.com", "delegate the domain", id="not delegated"),
        pytest.param("ann@example.com", "service_account_file or subject", id="key refused"),
    ],
)
def test_a_refused_service_account_is_one_line_that_fits_it(
    warehouse: Warehouse,
    project: Project,
    server: Sandbox,
    configure: Any,
    capsys: pytest.CaptureFixture[str],
    subject: str,
    named: str,
) -> None:
    key = write_json(project.directory / "key.json", service_account_info(server.base_url))
    configure(api_base_url=server.base_url, service_account_file=key, subject=subject)
    if subject.startswith("ann"):
        action = {"status": 400, "reason": "invalid_grant", "message": "Invalid JWT Signature."}
        server.set_faults([{"match": {"method": "token"}, "action": action, "times": None}])
    code, _, err = run_main(capsys, "gmail")
    assert code == 1
    line = one_line(err)
    assert named in line
    assert "run.py auth" not in line


def test_a_copy_of_user_credentials_writes_nothing(project: Project, server: Sandbox) -> None:
    """google-auth copies credentials to change them; the file belongs to the first."""
    path = write_json(stored_token(project), token_info(server.base_url))
    copy = UserCredentials.read(path).with_quota_project("another")
    assert call(copy, server) == 200
    assert read(path) == token_info(server.base_url)
