"""The sandbox's OAuth endpoints, as Google's own libraries and a browser see them."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import google.auth.exceptions
import google.oauth2.credentials
import google.oauth2.service_account
import httplib2
import pytest
from google.auth.transport.requests import Request

from landfall_sandbox.controls import Sandbox
from loaders.sources.gmail.options import SCOPES

from .oauth_files import service_account_info

VERIFIER = "a-verifier-of-at-least-forty-three-characters"
CLIENT = {"client_id": "client-1", "client_secret": "client-secret"}
REDIRECT = "http://localhost:8765/"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(size=5) as server:
        yield server


def authorize(sandbox: Sandbox, **parameters: str) -> tuple[int, dict[str, str], Any]:
    """What a browser is answered: (status, parameters of the redirect, body)."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    asked = {
        "client_id": CLIENT["client_id"],
        "redirect_uri": REDIRECT,
        "response_type": "code",
        "scope": SCOPES[0],
        "state": "state-1",
        "access_type": "offline",
        "code_challenge": challenge.decode().rstrip("="),
        "code_challenge_method": "S256",
        **parameters,
    }
    browser = httplib2.Http()
    browser.follow_redirects = False
    url = f"{sandbox.base_url}/o/oauth2/auth?{urllib.parse.urlencode(asked)}"
    response, content = browser.request(url)
    location = urllib.parse.urlsplit(response.get("location", ""))
    return (
        response.status,
        dict(urllib.parse.parse_qsl(location.query)),
        json.loads(content or b"null"),
    )


def redeem(sandbox: Sandbox, code: str, **parameters: str) -> tuple[int, dict[str, Any]]:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
        **CLIENT,
        **parameters,
    }
    response, content = httplib2.Http().request(
        f"{sandbox.base_url}/token", "POST", urllib.parse.urlencode(form)
    )
    return response.status, json.loads(content)


def refreshed(sandbox: Sandbox, refresh_token: str) -> Any:
    credentials = google.oauth2.credentials.Credentials(
        None, refresh_token, token_uri=f"{sandbox.base_url}/token", **CLIENT
    )
    credentials.refresh(Request())
    return credentials


def test_consent_gives_a_code_that_gives_tokens_once(sandbox: Sandbox) -> None:
    status, answer, _ = authorize(sandbox)
    assert (status, answer["state"], answer["scope"]) == (302, "state-1", SCOPES[0])
    status, token = redeem(sandbox, answer["code"])
    assert status == 200
    assert token["scope"] == SCOPES[0]
    assert refreshed(sandbox, token["refresh_token"]).valid
    assert redeem(sandbox, answer["code"])[1]["error"] == "invalid_grant"


def test_a_denied_consent_gives_the_error_and_the_state(sandbox: Sandbox) -> None:
    status, answer, _ = authorize(sandbox, login_hint="deny")
    assert (status, answer) == (302, {"error": "access_denied", "state": "state-1"})


def test_another_scope_can_be_granted_and_no_refresh_token(sandbox: Sandbox) -> None:
    _, answer, _ = authorize(sandbox, login_hint="other-scope")
    assert redeem(sandbox, answer["code"])[1]["scope"] not in SCOPES
    for parameters in ({"login_hint": "no-refresh-token"}, {"access_type": "online"}):
        _, answer, _ = authorize(sandbox, **parameters)
        assert "refresh_token" not in redeem(sandbox, answer["code"])[1]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"client_id": "client-2"}, "invalid_grant"),
        ({"redirect_uri": "http://localhost:1/"}, "redirect_uri_mismatch"),
    ],
)
def test_a_code_is_its_clients_own(
    sandbox: Sandbox, parameters: dict[str, str], error: str
) -> None:
    _, answer, _ = authorize(sandbox)
    status, refusal = redeem(sandbox, answer["code"], **parameters)
    assert (status, refusal["error"]) == (400, error)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"client_id": ""}, "client_id"),
        ({"redirect_uri": ""}, "redirect_uri"),
        ({"scope": ""}, "scope"),
        ({"response_type": "token"}, "response_type"),
        ({"code_challenge_method": "plain"}, "code_challenge_method"),
    ],
)
def test_a_wrong_authorization_request_is_not_redirected(
    sandbox: Sandbox, parameters: dict[str, str], named: str
) -> None:
    status, redirect, body = authorize(sandbox, **parameters)
    assert (status, redirect) == (400, {})
    assert named in body["error_description"]


def test_a_rotating_refresh_token_is_good_once(sandbox: Sandbox) -> None:
    first = refreshed(sandbox, "rotating")
    assert first.refresh_token not in (None, "rotating")
    second = refreshed(sandbox, first.refresh_token)
    assert second.token != first.token
    with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
        refreshed(sandbox, "rotating")


@pytest.mark.parametrize(
    ("subject", "error"), [("ann@example.com", None), ("undelegated@a.example", "unauthorized")]
)
def test_an_assertion_for_a_delegated_subject_gives_a_token(
    sandbox: Sandbox, subject: str, error: str | None
) -> None:
    credentials = google.oauth2.service_account.Credentials.from_service_account_info(
        service_account_info(sandbox.base_url), scopes=SCOPES, subject=subject
    )
    if error is None:
        credentials.refresh(Request())
        assert credentials.valid
        return
    with pytest.raises(google.auth.exceptions.RefreshError, match=error):
        credentials.refresh(Request())


@pytest.mark.parametrize("assertion", ["no JWT", "a.b.c", "e30.e30.e30", "a.W10.c"])
def test_what_is_no_assertion_is_refused(sandbox: Sandbox, assertion: str) -> None:
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    response, content = httplib2.Http().request(
        f"{sandbox.base_url}/token", "POST", urllib.parse.urlencode(form)
    )
    assert response.status == 400
    assert json.loads(content)["error"] == "invalid_grant"
