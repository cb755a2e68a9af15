"""`run.py auth`: from the owner's consent to a stored token, and whatever comes in between."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import pytest

from landfall_sandbox.controls import Sandbox
from loaders.settings.places import PROJECT_DIR
from loaders.sources.connections import load_connection
from loaders.sources.gmail.options import API, SCOPES
from loaders.sources.google_credentials import find_credentials
from loaders.warehouse.base import Warehouse

from .cli.conftest import one_line, run_main
from .conftest import Project
from .oauth_files import CANARY, client_secrets_info, token_info, write_json

Answer = Callable[[str], str]
pytestmark = pytest.mark.usefixtures("own_secrets")


class StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        return None


def browse(url: str, **parameters: str) -> str:
    """Open the printed address as a browser does; return the address that it ends at."""
    opener = urllib.request.build_opener(StayHere, urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as redirect:
        opener.open(f"{url}&{urllib.parse.urlencode(parameters)}")
    with redirect.value as answer:
        assert answer.code == 302
        return str(answer.headers["Location"])


@pytest.fixture
def client_file(project: Project, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An OAuth client of the sandbox, and a connection acct1 that reads from there."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__API_BASE_URL", sandbox.base_url)
    return write_json(project.directory / "client.json", client_secrets_info(sandbox.base_url))


class Person:
    """Types the command, follows the printed address, and pastes where the browser ended."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, client: Path
    ) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self._client = client

    def authorise(self, answer: Answer, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout after the prompt, stderr)."""

        def paste(prompt: str) -> str:
            printed = self._capsys.readouterr().out
            [url] = re.findall(r"http\S+/o/oauth2/auth\S+", printed)
            assert CANARY not in printed
            return answer(url)

        self._monkeypatch.setattr(builtins, "input", paste)
        options = arguments or ("--connection", "acct1", "--client-secrets", str(self._client))
        return run_main(self._capsys, "auth", "gmail", "--no-browser", *options)


@pytest.fixture
def person(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, client_file: Path
) -> Person:
    return Person(capsys, monkeypatch, client_file)


def stored_token(project: Project, name: str = "acct1") -> Path:
    return project.dlt_dir / f"gmail.{name}.token.json"


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_a_pasted_answer_becomes_a_stored_token(project: Project, person: Person) -> None:
    code, out, err = person.authorise(browse)
    assert (code, err) == (0, "")
    path = stored_token(project)
    assert mode(path) == "0o600"
    assert [entry.name for entry in project.dlt_dir.iterdir()] == [path.name]
    token = json.loads(path.read_text())
    assert token["scopes"] == list(SCOPES)
    assert google.oauth2.credentials.Credentials.from_authorized_user_info(token).valid
    assert "mailbox: sam.rivers@example.com" in out
    assert str(path) in out
    assert "run.py check gmail --connection acct1" in out
    assert CANARY not in out
    assert token["token"] not in out
    assert token["refresh_token"] not in out


def test_a_stored_token_is_a_configured_connection(
    project: Project, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert person.authorise(browse)[0] == 0
    monkeypatch.delenv("SOURCES__GMAIL__ACCT1__API_BASE_URL")
    connection = load_connection("gmail", None)
    assert connection.name == "acct1"
    credentials = find_credentials(connection, API).credentials
    assert credentials.valid
    assert credentials.refresh_token


def test_the_address_asks_for_read_access_for_good_with_pkce(person: Person) -> None:
    asked: dict[str, str] = {}

    def look(url: str) -> str:
        asked.update(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        return browse(url)

    assert person.authorise(look)[0] == 0
    assert asked["scope"] == "https://www.googleapis.com/auth/gmail.readonly"
    assert (asked["access_type"], asked["prompt"]) == ("offline", "consent")
    assert asked["code_challenge_method"] == "S256"
    assert re.fullmatch(r"http://localhost:\d+/", asked["redirect_uri"])


def without(url: str, name: str) -> str:
    return re.sub(rf"\b{name}=[^&]*&?", "", url)


@pytest.mark.parametrize(
    ("answer", "code", "named"),
    [
        pytest.param(lambda url: browse(url, login_hint="deny"), 1, "denied", id="denied"),
        pytest.param(
            lambda url: browse(url, login_hint="other-scope"), 1, SCOPES[0], id="another scope"
        ),
        pytest.param(
            lambda url: browse(url, login_hint="no-refresh-token"),
            1,
            "no refresh token",
            id="no refresh token",
        ),
        pytest.param(
            lambda url: browse(url, code_challenge="x" * 43), 1, "invalid_grant", id="PKCE"
        ),
        pytest.param(
            lambda url: browse(url, state="somebody-elses"), 2, "not the answer", id="state"
        ),
        pytest.param(lambda url: without(browse(url), "state"), 2, "not the answer", id="no state"),
        pytest.param(lambda url: without(browse(url), "code"), 2, "not the answer", id="no code"),
        pytest.param(lambda url: url, 2, "not the answer", id="the printed address"),
        pytest.param(lambda url: "4/a-code-alone", 2, "not the answer", id="code alone"),
        pytest.param(lambda url: "", 2, "not the answer", id="nothing"),
    ],
)
def test_an_answer_without_consent_stores_nothing(
    project: Project, person: Person, answer: Answer, code: int, named: str
) -> None:
    done, out, err = person.authorise(answer)
    assert done == code
    assert named in one_line(err)
    assert CANARY not in out + err
    assert not project.dlt_dir.exists()


def test_tracebacks_show_no_secret(
    project: Project, person: Person, client_file: Path, sandbox: Sandbox
) -> None:
    options = ("--connection", "acct1", "--client-secrets", str(client_file), "--debug")
    pasted: list[str] = []

    def tamper(url: str) -> str:
        pasted.append(browse(url, code_challenge="x" * 43))
        return pasted[0]

    code, out, err = person.authorise(tamper, *options)
    assert code == 1
    assert "Traceback" in err
    assert CANARY not in out + err
    sent = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(pasted[0]).query))
    assert sent["code"] not in out + err


@pytest.mark.parametrize(
    ("raised", "code", "named"),
    [(KeyboardInterrupt(), 130, "interrupted"), (EOFError(), 2, "no address was pasted")],
)
def test_a_person_may_leave(
    project: Project, person: Person, raised: BaseException, code: int, named: str
) -> None:
    def leave(url: str) -> str:
        raise raised

    done, _, err = person.authorise(leave)
    assert done == code
    assert named in one_line(err)


def test_more_scopes_than_asked_for_are_fine(
    project: Project, person: Person, sandbox: Sandbox
) -> None:
    scopes = f"openid {SCOPES[0]}"
    sandbox.set_faults(
        [{"match": {"method": "token"}, "action": {"mutate": {"set": {"scope": scopes}}}}]
    )
    assert person.authorise(browse)[0] == 0
    assert json.loads(stored_token(project).read_text())["scopes"] == list(SCOPES)


def test_a_token_that_the_api_refuses_is_not_stored(
    project: Project, person: Person, sandbox: Sandbox
) -> None:
    action = {"status": 403, "reason": "accessNotConfigured"}
    sandbox.set_faults([{"match": {"method": "getProfile"}, "action": action, "times": None}])
    code, _, err = person.authorise(browse)
    assert code == 1
    assert "enable the Gmail API" in one_line(err)
    assert not project.dlt_dir.exists()


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ({"drop": True}, "cannot be reached"),
        ({"status": 502, "body": "<html>"}, "neither a token nor OAuth's error"),
        ({"status": 200, "body": "<html>"}, "neither a token nor OAuth's error"),
        ({"status": 200, "json": []}, "neither a token nor OAuth's error"),
        ({"status": 200, "json": "token"}, "neither a token nor OAuth's error"),
    ],
)
def test_a_token_endpoint_that_is_down_is_one_line(
    project: Project, person: Person, sandbox: Sandbox, action: dict[str, Any], said: str
) -> None:
    sandbox.set_faults([{"match": {"method": "token"}, "action": action, "times": None}])
    code, _, err = person.authorise(browse)
    assert code == 1
    assert said in one_line(err)


def test_a_new_token_replaces_the_old_one_and_its_mode(project: Project, person: Person) -> None:
    path = write_json(stored_token(project), {"token": "old"})
    path.chmod(0o644)
    assert person.authorise(browse)[0] == 0
    assert mode(path) == "0o600"
    assert json.loads(path.read_text())["refresh_token"]


def test_a_configured_connection_needs_no_options(
    project: Project, person: Person, client_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own token_file gets the token: that is where it is looked for."""
    mine = project.directory / "secrets" / "mine.json"
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__TOKEN_FILE", str(mine))
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__CLIENT_SECRETS_FILE", str(client_file))
    assert person.authorise(browse, "--lock-wait", "1s")[0] == 0
    assert mode(mine) == "0o600"
    assert not stored_token(project).exists()
    assert find_credentials(load_connection("gmail", None), API).credentials.valid


def test_a_token_that_cannot_be_written_is_one_line(project: Project, person: Person) -> None:
    project.dlt_dir.write_text("not a directory")
    code, _, err = person.authorise(browse)
    assert code == 2
    assert str(stored_token(project)) in one_line(err)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "FileNotFoundError"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"web": {"client_id": "x", "client_secret": "a-canary"}}', "Desktop app"),
        ('{"installed": {"client_id": "x"}}', "KeyError"),
        ('{"installed": {"client_secret": "a-canary"}}', "ValueError"),
    ],
)
def test_what_is_no_client_is_one_line(
    client_file: Path, person: Person, content: str | None, named: str
) -> None:
    client_file.unlink()
    if content is not None:
        client_file.write_text(content)
    code, _, err = person.authorise(browse)
    assert code == 2
    line = one_line(err)
    assert str(client_file) in line
    assert named in line
    assert "a-canary" not in line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--connection", "a:b"], "letters, digits"),
        (["--connection", "../x"], "letters, digits"),
        (["--connection", ""], "letters, digits"),
        (["--connection", "sandbox"], "sandbox"),
        (["--connection", "new"], "--client-secrets"),
        ([], "--connection NAME"),
    ],
)
def test_a_connection_is_named_and_a_client_given(
    project: Project, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    code, _, err = run_main(capsys, "auth", "gmail", *options)
    assert code == 2
    assert named in one_line(err)


def test_help_mentions_every_option(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_main(capsys, "auth", "--help")
    assert code == 0
    for option in ("gmail", "--connection", "--client-secrets", "--no-browser", "--debug"):
        assert option in out
    assert "auth gmail --connection" in run_main(capsys, "--help")[1]


def test_an_access_token_would_hide_the_stored_one(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__ACCESS_TOKEN", CANARY)
    code, out, err = person.authorise(browse)
    assert code == 2
    assert "access_token" in one_line(err)
    assert CANARY not in out + err


class Browser:
    """Opens an address in a thread, as a browser is a process of its own."""

    def __init__(self, **parameters: str) -> None:
        self._parameters = parameters
        self.pages: list[str] = []

    def open(self, url: str, **options: Any) -> bool:
        threading.Thread(target=self._visit, args=[url], daemon=True).start()
        return True

    def _visit(self, url: str) -> None:
        with urllib.request.urlopen(browse(url, **self._parameters)) as page:
            self.pages.append(page.read().decode())


def run_with_browser(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    client_file: Path,
    browser: Callable[[Any], Any],
) -> tuple[int, str, str]:
    monkeypatch.setattr(webbrowser, "get", browser)
    options = ("--connection", "acct1", "--client-secrets", str(client_file))
    return run_main(capsys, "auth", "gmail", *options)


def test_a_browser_here_brings_the_answer_itself(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    client_file: Path,
) -> None:
    browser = Browser()
    code, out, err = run_with_browser(capsys, monkeypatch, client_file, lambda name: browser)
    assert (code, err) == (0, "")
    assert "/o/oauth2/auth?" in out
    assert "mailbox: sam.rivers@example.com" in out
    assert mode(stored_token(project)) == "0o600"


def test_a_browser_that_denies_is_one_line(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    client_file: Path,
) -> None:
    browser = Browser(login_hint="deny")
    code, _, err = run_with_browser(capsys, monkeypatch, client_file, lambda name: browser)
    assert code == 1
    assert "denied" in one_line(err)
    assert not project.dlt_dir.exists()


def test_a_machine_without_a_browser_is_told_the_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, client_file: Path
) -> None:
    def refuse(name: Any) -> Any:
        raise webbrowser.Error("could not locate runnable browser")

    code, _, err = run_with_browser(capsys, monkeypatch, client_file, refuse)
    assert code == 1
    assert "--no-browser" in one_line(err)


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(
    warehouse: Warehouse, project: Project, client_file: Path, sandbox: Sandbox
) -> None:
    """Authorised, checked, revoked, and told what to do."""
    process = subprocess.Popen(
        [
            sys.executable, "-u", str(PROJECT_DIR / "loaders" / "run.py"), "auth", "gmail",
            "--connection", "acct1", "--client-secrets", str(client_file),
        ],
        env={**os.environ, "BROWSER": "true %s"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    url = next(line.strip() for line in process.stdout if "/o/oauth2/auth?" in line)
    with urllib.request.urlopen(url) as page:
        assert "You may close this window" in page.read().decode()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "mailbox: sam.rivers@example.com" in out
    path = stored_token(project)
    assert mode(path) == "0o600"

    checked = project.run_cli("check", "gmail")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"authorised user, {path}" in checked.stdout

    write_json(path, token_info(sandbox.base_url, "revoked-by-its-owner"))
    refused = project.run_cli("gmail")
    assert refused.returncode == 1
    assert "run.py auth gmail --connection acct1" in one_line(refused.stderr)
    assert CANARY not in refused.stdout + refused.stderr
