"""Errors in the shapes Google's APIs answer with.

Source: Gmail API v1, "Resolve errors"; https://google.aip.dev/193.
"""

from typing import Any

from landfall_sandbox.wire import ApiError, Response, json_response

_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_QUOTA_MESSAGE = (
    "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute per user' of service "
    "'gmail.googleapis.com' for consumer 'project_number:100000000000'."
)
_CREDENTIAL_MESSAGE = (
    "authentication credential. Expected OAuth 2 access token, login cookie or other valid "
    "authentication credential. See "
    "https://developers.google.com/identity/sign-in/web/devconsole-project."
)
_CREDENTIAL_LOCATION = {"location": "Authorization", "locationType": "header"}


def error_response(
    status: int,
    reason: str,
    message: str,
    *,
    domain: str = "global",
    extra: dict[str, str] | None = None,
    details: list[dict[str, Any]] | None = None,
) -> Response:
    """Return an error answer; `extra` goes into its one `errors` entry."""
    error: dict[str, Any] = {
        "code": status,
        "message": message,
        "errors": [{"message": message, "domain": domain, "reason": reason} | (extra or {})],
        "status": _STATUS_NAMES.get(status, "UNKNOWN"),
    }
    if details:
        error["details"] = details
    return json_response({"error": error}, status)


def invalid_argument(message: str) -> ApiError:
    """Return a 400 invalidArgument."""
    return ApiError(error_response(400, "invalidArgument", message))


def not_found() -> ApiError:
    """Return a 404 notFound, the same for every kind of object."""
    return ApiError(error_response(404, "notFound", "Requested entity was not found."))


def forbidden_user(user: str) -> ApiError:
    """Return the 403 for a mailbox that these credentials don't open."""
    return ApiError(error_response(403, "forbidden", f"Delegation denied for {user}"))


def unknown_parameter(name: str) -> ApiError:
    """Return the 400 for a query parameter the method doesn't have."""
    message = (
        f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter. '
        f"Field '{name}' could not be found in request message."
    )
    violation = {"description": message}
    details = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
    return ApiError(error_response(400, "badRequest", message, details=[details]))


def login_required() -> ApiError:
    """Return the 401 for a request without credentials."""
    message = f"Request is missing required {_CREDENTIAL_MESSAGE}"
    extra = _CREDENTIAL_LOCATION | {"message": "Login Required."}
    return ApiError(error_response(401, "required", message, extra=extra))


def invalid_credentials() -> ApiError:
    """Return the 401 for an access token that expired or was never valid."""
    message = f"Request had invalid {_CREDENTIAL_MESSAGE}"
    extra = _CREDENTIAL_LOCATION | {"message": "Invalid Credentials"}
    return ApiError(error_response(401, "authError", message, extra=extra))


def too_many_requests() -> Response:
    """Return the 429 form of a quota error."""
    message = "Resource has been exhausted (e.g. check quota)."
    return error_response(429, "rateLimitExceeded", message)


def user_rate_limit() -> Response:
    """Return the 403 form of a quota error, with the newer `details`."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "RATE_LIMIT_EXCEEDED",
        "domain": "googleapis.com",
        "metadata": {
            "service": "gmail.googleapis.com",
            "quota_metric": "gmail.googleapis.com/default_requests",
        },
    }
    reason = "userRateLimitExceeded"
    return error_response(403, reason, _QUOTA_MESSAGE, domain="usageLimits", details=[info])
