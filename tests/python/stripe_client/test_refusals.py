"""What Stripe refuses, and what a person reads of it."""

from __future__ import annotations

import json

import pytest

from loaders.errors import ForeignAnswer, SourceError
from loaders.sources.refusals import KeyRefused, PermissionDenied, RequestRefused
from loaders.sources.stripe.options import API_VERSION
from tests.python.conftest import STRIPE_KEY

from .conftest import CONTENT, Answer, Server, new_client, refusal

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("status", "error", "kind", "said"),
    [
        pytest.param(
            400,
            {"code": "resource_missing", "param": "starting_after"},
            RequestRefused,
            "400 resource_missing (starting_after)",
            id="400",
        ),
        pytest.param(
            400,
            {"type": "invalid_request_error", "param": "created[gte]"},
            RequestRefused,
            "400 invalid_request_error (created[gte])",
            id="400 without a code",
        ),
        pytest.param(402, {"code": "card_declined"}, RequestRefused, "402 card_declined", id="402"),
        pytest.param(
            401,
            {"code": "api_key_expired"},
            KeyRefused,
            "401 api_key_expired: the key is not accepted; correct sources.stripe.acct1.api_key",
            id="401",
        ),
        pytest.param(
            403,
            {"message": f"{STRIPE_KEY} lacks 'rak_charge_read' for {CONTENT}"},
            PermissionDenied,
            "rak_charge_read",
            id="403",
        ),
        pytest.param(
            403,
            {"code": "account_invalid"},
            SourceError,
            "sources.stripe.acct1.stripe_account",
            id="403 of an account",
        ),
        pytest.param(
            400,
            {"type": "invalid_request_error", "message": "Invalid Stripe API version: 2027-01-01"},
            SourceError,
            f"does not take the API version '{API_VERSION}'; correct"
            " sources.stripe.acct1.api_version",
            id="400 of a version",
        ),
    ],
)
def test_a_refusal_is_of_its_kind_and_quotes_names_alone(
    server: Server, status: int, error: dict[str, str], kind: type[SourceError], said: str
) -> None:
    message = f"No such thing: '{CONTENT}', provided key: {STRIPE_KEY}"
    server.answers = [Answer.error(status, None, **{"message": message, **error})]
    refused = refusal(new_client(server.url))
    assert type(refused) is kind
    assert not refused.retryable
    assert said in str(refused)
    assert str(status) in str(refused)
    assert len(server.heard) == 1
    if isinstance(refused, RequestRefused):
        assert refused.parameter == error.get("param", "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>" + CONTENT.encode(), id="HTML"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"error":null}', id="no error"),
        pytest.param(b'{"error":"' + CONTENT.encode() + b'"}', id="a text"),
        pytest.param(b'{"error":{"code":7,"param":[],"message":{}}}', id="no names"),
        pytest.param(
            json.dumps({"error": {"code": f"see {CONTENT}", "param": CONTENT}}).encode(),
            id="content for names",
        ),
        pytest.param(b'{"error":{"code":"\xff"}}', id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
    ],
)
@pytest.mark.parametrize("status", [400, 503])
def test_any_body_of_an_error_will_do(server: Server, status: int, body: bytes) -> None:
    server.answers = [Answer(status, body)]
    assert str(status) in str(refusal(new_client(server.url)))


@pytest.mark.parametrize("status", [204, 206, 301, 302, 303, 307, 308])
def test_a_redirect_is_a_transient_error_and_is_not_followed(server: Server, status: int) -> None:
    """Nobody else is sent the key; and it says nothing of the kind that was asked for."""
    server.answers = [Answer(status, b"", {"Location": f"{server.url}/elsewhere"}), Answer()]
    error = refusal(new_client(server.url, max_attempts=1))
    assert {heard.path for heard in server.heard} == {"/v1/charges?limit=100"}
    assert type(error) is ForeignAnswer
