"""Stripe's error answers. Source: Stripe API reference, "Errors"; Stripe docs, "Error codes"."""

from collections.abc import Mapping

from landfall_sandbox.stripe.templates import pretty
from landfall_sandbox.wire import ApiError, Response

CONTENT_TYPE = "application/json"
# What a fault means that names no reason: the code of the error, none for most.
DEFAULT_REASONS: Mapping[int, str] = dict.fromkeys(range(400, 600), "") | {
    404: "resource_missing",
    409: "idempotency_key_in_use",
    429: "rate_limit",
}
_DOCS = "https://stripe.com/docs/error-codes/"
_LOGS = "https://dashboard.stripe.com/test/logs/"


def error_response(
    status: int, code: str | None, message: str, param: str | None = None
) -> Response:
    """Return an error in Stripe's shape; what isn't known of it is left out."""
    kind = "api_error" if status >= 500 else "invalid_request_error"
    error = {
        "code": code or None,
        "doc_url": f"{_DOCS}{code.replace('_', '-')}" if code else None,
        "message": message,
        "param": param,
        "request_log_url": f"{_LOGS}?object=request" if status not in (401, 500) else None,
        "type": "idempotency_error" if status == 409 else kind,
    }
    kept = {name: value for name, value in error.items() if value is not None}
    response = Response(status, pretty({"error": kept}).encode(), CONTENT_TYPE)
    if code == "rate_limit":
        response.headers["Stripe-Rate-Limited-Reason"] = "global-rate"
    return response


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A malformed request: 400."""
    return ApiError(error_response(400, code, message, param))


def missing_cursor(name: str, what: str, object_id: str) -> ApiError:
    """A parameter names an object that there is not: 400."""
    return bad_request(f"No such {what}: '{object_id}'", name, "resource_missing")


def not_found(what: str, object_id: str) -> ApiError:
    """The path names an object that there is not: 404."""
    message = f"No such {what}: '{object_id}'"
    return ApiError(error_response(404, "resource_missing", message, "id"))


def unrecognized(method: str, path: str) -> ApiError:
    """No such path: 404."""
    message = f"Unrecognized request URL ({method}: {path})."
    return ApiError(error_response(404, None, message))


def unknown_parameter(name: str) -> ApiError:
    """A parameter the method doesn't have: 400."""
    return bad_request(f"Received unknown parameter: {name}", name, "parameter_unknown")


def invalid_integer(name: str, value: str) -> ApiError:
    """Text that is no whole number: 400."""
    return bad_request(f"Invalid integer: {value}", name, "parameter_invalid_integer")


def unauthorized(message: str, code: str | None = None) -> ApiError:
    """No key or a bad one: 401."""
    response = error_response(401, code, message)
    response.headers["WWW-Authenticate"] = 'Bearer realm="Stripe"'
    return ApiError(response)


def rate_limited() -> ApiError:
    """Too many requests: 429."""
    return ApiError(error_response(429, "rate_limit", "Request rate limit exceeded."))


def forbidden(key: str, account_id: str, permission: str) -> ApiError:
    """A restricted key without the permission: 403."""
    message = (
        f"The provided key '{mask(key)}' does not have the required permissions for this endpoint"
        f" on account '{account_id}'. Having the '{permission}' permission would allow this"
        " request to continue."
    )
    return ApiError(error_response(403, None, message))


def unknown_account(key: str, account_id: str) -> ApiError:
    """An account that the key has nothing to do with: 403."""
    message = (
        f"The provided key '{mask(key)}' does not have access to account '{account_id}'"
        " (or that account does not exist). Application access may have been revoked."
    )
    return ApiError(error_response(403, "account_invalid", message))


def mask(key: str) -> str:
    """Return a key as Stripe shows it: its kind and its last four characters."""
    shown = key[:8] if key[2:3] == "_" else key[:4]
    return f"{shown}{'*' * max(4, len(key) - len(shown) - 4)}{key[-4:]}"
