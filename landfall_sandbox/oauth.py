"""The OAuth endpoints: consent, and tokens for codes, refresh tokens and assertions.

Source: RFC 6749 sections 4.1, 5 and 6, RFC 7523, RFC 7636;
https://developers.google.com/identity/protocols/oauth2
"""

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlencode

from landfall_sandbox.quota import Quota
from landfall_sandbox.tokens import Tokens
from landfall_sandbox.wire import GOOGLE_REASONS, ApiError, Call, Request, Response, json_response

_SCOPE = "https://www.googleapis.com/auth/gmail.readonly"
_OTHER_SCOPE = "https://www.googleapis.com/auth/userinfo.email"
_CODE_GRANT = "authorization_code"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SECRET_FIELDS = {_CODE_GRANT: "code", "refresh_token": "refresh_token", _JWT_GRANT: "assertion"}
_DENY, _OTHER, _NO_REFRESH = "deny", "other-scope", "no-refresh-token"
_REVOKED_TOKEN = "revoked"
_ROTATING_TOKEN = "rotating"
_UNDELEGATED_SUBJECT = "undelegated@"
_LIFETIME_SECONDS = 3599


@dataclass(frozen=True, slots=True)
class _Consent:
    """What an authorization code stands for."""

    client_id: str
    redirect_uri: str
    challenge: str | None
    scope: str
    is_offline: bool


class OAuthApi:
    """Consents at once, and gives an access token for any code, refresh token and assertion.

    `login_hint` decides about the consent: "deny" refuses it, "other-scope" grants another scope
    than was asked for, "no-refresh-token" keeps the refresh token back. A refresh token that
    begins with "revoked" is refused; one that begins with "rotating" is good once and answered
    with the next. An assertion for a subject that begins with "undelegated@" is refused.
    """

    default_reasons: Mapping[int, str] = GOOGLE_REASONS

    def __init__(self, tokens: Tokens) -> None:
        """Start; `tokens` says which access tokens the APIs take."""
        self.quota = Quota({})
        self._tokens = tokens
        self._lock = threading.Lock()
        self._consents: dict[str, _Consent] = {}
        self._spent_tokens: set[str] = set()

    def match(self, request: Request) -> Call | None:
        """Return the call for GET /o/oauth2/auth and POST /token."""
        match request.method, request.path:
            case "GET", "/o/oauth2/auth":
                return Call("authorize", None, lambda: self._authorize(request))
            case "POST", "/token":
                return Call("token", None, lambda: self._grant(request))
        return None

    def error(self, status: int, reason: str, message: str) -> Response:
        """Return an error in the shape of RFC 6749."""
        return json_response({"error": reason, "error_description": message}, status)

    def _authorize(self, request: Request) -> Response:
        """Redirect the browser to the client, with a code or the refusal."""
        asked = {name: values[-1] for name, values in request.query.items()}
        for name in ("client_id", "redirect_uri", "response_type", "scope"):
            if not asked.get(name):
                raise _refusal("invalid_request", f"Missing required parameter: {name}")
        if asked["response_type"] != "code":
            raise _refusal("unsupported_response_type", "Invalid response_type")
        if asked.get("code_challenge_method", "S256") != "S256":
            raise _refusal("invalid_request", "Invalid code_challenge_method")
        hint = asked.get("login_hint")
        state = {"state": asked["state"]} if "state" in asked else {}
        if hint == _DENY:
            return _redirect(asked["redirect_uri"], {"error": "access_denied", **state})
        consent = _Consent(
            client_id=asked["client_id"],
            redirect_uri=asked["redirect_uri"],
            challenge=asked.get("code_challenge"),
            scope=_OTHER_SCOPE if hint == _OTHER else asked["scope"],
            is_offline=asked.get("access_type") == "offline" and hint != _NO_REFRESH,
        )
        code = f"4/{secrets.token_urlsafe(24)}"
        with self._lock:
            self._consents[code] = consent
        return _redirect(asked["redirect_uri"], {**state, "code": code, "scope": consent.scope})

    def _grant(self, request: Request) -> Response:
        form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
        grant_type = form.get("grant_type", "")
        if grant_type not in _SECRET_FIELDS:
            raise _refusal("unsupported_grant_type", f"Invalid grant_type: {grant_type}")
        secret = form.get(_SECRET_FIELDS[grant_type])
        if not secret:
            field = _SECRET_FIELDS[grant_type]
            raise _refusal("invalid_request", f"Missing required parameter: {field}")
        granted: dict[str, str] = {}
        if grant_type == _CODE_GRANT:
            granted = self._redeem(secret, form, _client_id(request, form))
        elif grant_type == _JWT_GRANT:
            _check_assertion(secret)
        else:
            granted = {"scope": _SCOPE, **self._rotate(secret)}
        token = {
            "access_token": self._tokens.issue(secret),
            "expires_in": _LIFETIME_SECONDS,
            "token_type": "Bearer",
        }
        return json_response(token | granted)

    def _redeem(self, code: str, form: dict[str, str], client_id: str) -> dict[str, str]:
        """Use up a code; the PKCE verifier must be the one whose hash the client began with."""
        with self._lock:
            consent = self._consents.pop(code, None)
        if consent is None or consent.client_id != client_id:
            raise _refusal("invalid_grant", "Malformed auth code.")
        if consent.redirect_uri != form.get("redirect_uri"):
            raise _refusal("redirect_uri_mismatch", "Bad Request")
        if consent.challenge is not None:
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != consent.challenge:
                raise _refusal("invalid_grant", "Invalid code verifier.")
        refresh_token = {"refresh_token": f"1//{secrets.token_urlsafe(32)}"}
        return {"scope": consent.scope, **(refresh_token if consent.is_offline else {})}

    def _rotate(self, refresh_token: str) -> dict[str, str]:
        """Use a refresh token; return the one that replaces it, if it is of that kind."""
        with self._lock:
            if refresh_token.startswith(_REVOKED_TOKEN) or refresh_token in self._spent_tokens:
                raise _refusal("invalid_grant", "Token has been expired or revoked.")
            if not refresh_token.startswith(_ROTATING_TOKEN):
                return {}
            self._spent_tokens.add(refresh_token)
        return {"refresh_token": f"{_ROTATING_TOKEN}-{secrets.token_urlsafe(32)}"}


def _check_assertion(assertion: str) -> None:
    """Refuse what is no JWT of a service account; its signature is not looked at."""
    try:
        claims = json.loads(_decoded(assertion.split(".")[1]))
        subject = str(claims.get("sub", ""))
        is_complete = all(claims.get(name) for name in ("iss", "scope", "aud", "exp"))
    except (ValueError, IndexError, AttributeError):
        is_complete = False
    if not is_complete:
        raise _refusal("invalid_grant", "Invalid JWT.")
    if subject.startswith(_UNDELEGATED_SUBJECT):
        message = "Client is unauthorized to retrieve access tokens using this method."
        raise _refusal("unauthorized_client", message, 401)


def _client_id(request: Request, form: dict[str, str]) -> str:
    """Return the client's id, from the form or HTTP Basic authentication."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        return unquote(_decoded(value).decode().partition(":")[0])
    return form.get("client_id", "")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _redirect(uri: str, parameters: dict[str, str]) -> Response:
    separator = "&" if "?" in uri else "?"
    location = f"{uri}{separator}{urlencode(parameters)}"
    return Response(302, b"", headers={"Location": location})


def _refusal(error: str, description: str, status: int = 400) -> ApiError:
    return ApiError(json_response({"error": error, "error_description": description}, status))
