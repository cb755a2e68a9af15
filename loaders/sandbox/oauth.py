"""The token endpoint: refresh tokens and service account assertions.

Source: RFC 6749 sections 5 and 6, RFC 7523; https://developers.google.com/identity/protocols/oauth2
"""

import hashlib
from urllib.parse import parse_qs

from loaders.sandbox.quota import Quota
from loaders.sandbox.wire import ApiError, Call, Request, Response, json_response

_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_REVOKED_TOKEN = "revoked"
_LIFETIME_SECONDS = 3599


class OAuthApi:
    """Gives an access token for any refresh token but "revoked", and for any assertion."""

    def __init__(self) -> None:
        """Start; tokens are not kept: the APIs take any bearer token but "expired"."""
        self.quota = Quota({})

    def match(self, request: Request) -> Call | None:
        """Return the call for POST /token."""
        if (request.method, request.path) != ("POST", "/token"):
            return None
        return Call("token", None, lambda: _grant(request))

    def error(self, status: int, reason: str, message: str) -> Response:
        """Return an error in the shape of RFC 6749."""
        return json_response({"error": reason, "error_description": message}, status)


def _grant(request: Request) -> Response:
    form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
    secret = _grant_secret(form)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    token = {
        "access_token": f"sandbox-{digest[:40]}",
        "expires_in": _LIFETIME_SECONDS,
        "token_type": "Bearer",
    }
    if form["grant_type"] != _JWT_GRANT:
        token["scope"] = "https://www.googleapis.com/auth/gmail.readonly"
    return json_response(token)


def _grant_secret(form: dict[str, str]) -> str:
    field = {"refresh_token": "refresh_token", _JWT_GRANT: "assertion"}
    grant_type = form.get("grant_type", "")
    if grant_type not in field:
        raise _refusal("unsupported_grant_type", f"Invalid grant_type: {grant_type}")
    secret = form.get(field[grant_type])
    if not secret:
        raise _refusal("invalid_request", f"Missing required parameter: {field[grant_type]}")
    if secret == _REVOKED_TOKEN:
        raise _refusal("invalid_grant", "Token has been expired or revoked.")
    return secret


def _refusal(error: str, description: str) -> ApiError:
    return ApiError(json_response({"error": error, "error_description": description}, 400))
