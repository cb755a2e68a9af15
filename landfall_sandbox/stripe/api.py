"""The read side of the Stripe API: paths, keys, answers.

Source: Stripe API reference, "Authentication", "Versioning", "Connected Accounts", "Request IDs".
"""

import base64
import binascii
import math
import re
import secrets
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote_plus

from landfall_sandbox.quota import Quota
from landfall_sandbox.stripe import errors
from landfall_sandbox.stripe.account import Account, Key
from landfall_sandbox.stripe.books import Books
from landfall_sandbox.stripe.expansion import check_paths, expand, tombstone
from landfall_sandbox.stripe.kinds import KINDS, Kind
from landfall_sandbox.stripe.ledger import API_VERSION
from landfall_sandbox.stripe.listing import filters_of, list_text, page, page_of_lines
from landfall_sandbox.stripe.parameters import Parameters
from landfall_sandbox.stripe.templates import pretty, sign
from landfall_sandbox.wire import ApiError, Call, Request, Response

EVENT_DAYS = 30
_PREFIX = "/v1/"
_KEY = re.compile(r"(sk|rk)_(test|live)_\w+")
_VERSION = re.compile(r"\d{4}-\d\d-\d\d(\.\w+)?(;\s*\w+=\w+)*")
_EVERYTHING: tuple[Key, Key] = ((-math.inf, -math.inf), (math.inf, math.inf))
_KINDS = {kind.plural: kind for kind in KINDS.values()}
_ACCOUNT_PERMISSION = "rak_accounts_kyc_basic_read"
Handler = Callable[["StripeApi", Account, Parameters], bytes]


class StripeApi:
    """Answers Stripe API requests from the books."""

    default_reasons: Mapping[int, str] = errors.DEFAULT_REASONS

    def __init__(self, books: Books) -> None:
        """Serve all accounts to the holder of any key."""
        self._books = books
        self.quota = Quota(dict.fromkeys(_methods(), 1))
        self.permissions: dict[str, list[str]] = {}

    def limit_requests(self, setting: dict[str, Any] | None) -> None:
        """Set how many requests a second are answered for one key, None for any number."""
        if setting is None:
            self.quota.configure(None)
        elif not isinstance(setting, dict) or setting.keys() != {"per_second"}:
            raise ValueError('stripe_limit: expected None or {"per_second": n}')
        else:
            limit = {"units_per_minute": setting["per_second"], "window_seconds": 1}
            self.quota.configure(limit)

    def match(self, request: Request) -> Call | None:
        """Return the call a request stands for; None for a path of another API."""
        if not request.path.startswith(_PREFIX):
            return None
        # As Stripe decodes forms: a plus is a blank, unless it is escaped.
        parts = [unquote_plus(part) for part in request.raw_path.removeprefix(_PREFIX).split("/")]
        route = _route(parts) if request.method == "GET" else None
        if route is None:
            return Call("unrecognized", None, lambda: self._refuse(request))
        method, permission, handler = route
        named = parts[1] if parts[0] == "accounts" else None
        run = self._runner(request, method, permission, handler, named)
        return Call(method, parts[1] if len(parts) > 1 else None, run)

    def error(self, status: int, reason: str, message: str) -> Response:
        """Return an error in Stripe's shape; `reason` is its code, none when empty."""
        # The server itself names its own failures in Google's words.
        code = None if reason == "internalError" else reason
        return self._with_headers(errors.error_response(status, code, message))

    def _refuse(self, request: Request) -> Response:
        raise self._finished(errors.unrecognized(request.method, request.path))

    def _runner(
        self,
        request: Request,
        method: str,
        permission: str,
        handler: Handler,
        named: str | None,
    ) -> Callable[[], Response]:
        def run() -> Response:
            try:
                version = self._version(request)
                key = _key(request)
                account = self._account(request.headers.get("stripe-account"), key)
                if named is not None:
                    account = self._account(named, key)
                if not self.quota.take(method, key):
                    raise errors.rate_limited()
                self._check_permission(key, permission, account)
                with self._books.file.lock:
                    text = handler(self, account, Parameters(request.query))
            except ApiError as error:
                raise self._finished(error) from None
            response = Response(200, sign(text), errors.CONTENT_TYPE)
            return self._with_headers(response, version)

        return run

    def _finished(self, error: ApiError) -> ApiError:
        self._with_headers(error.response)
        return error

    def _with_headers(self, response: Response, version: str = API_VERSION) -> Response:
        response.headers |= {
            "Date": formatdate(self._books.now() + self._books.date_offset, usegmt=True),
            "Request-Id": f"req_{secrets.token_hex(7)}",
            "Stripe-Version": version,
        }
        return response

    @staticmethod
    def _version(request: Request) -> str:
        version = request.headers.get("stripe-version", API_VERSION)
        if not _VERSION.fullmatch(version):
            raise errors.bad_request(f"Invalid Stripe API version: {version}")
        return version

    def _account(self, account_id: str | None, key: str) -> Account:
        try:
            return self._books.account(account_id)
        except KeyError:
            raise errors.unknown_account(key, str(account_id)) from None

    def _check_permission(self, key: str, permission: str, account: Account) -> None:
        allowed = self.permissions.get(key)
        if allowed is not None and permission not in allowed:
            is_account = permission == "account"
            name = _ACCOUNT_PERMISSION if is_account else f"rak_{permission}_read"
            raise errors.forbidden(key, account.id, name)

    def list_objects(self, account: Account, parameters: Parameters, kind: Kind) -> bytes:
        """Answer a list."""
        parameters.check_names(filters_of(kind), is_list=True)
        paths = check_paths(kind, parameters.texts("expand"), is_list=True)
        found = page(account, kind, parameters, self.window(kind))
        texts = [account.text(kind.name, index) for index in found.indexes]
        if paths:
            texts = [expand(account, kind, text, paths) for text in texts]
        return list_text(texts, found.has_more, f"/v1/{kind.plural}")

    def get_object(
        self, account: Account, parameters: Parameters, kind: Kind, object_id: str
    ) -> bytes:
        """Answer the read of one object."""
        parameters.check_names((), is_list=False)
        paths = check_paths(kind, parameters.texts("expand"), is_list=False)
        index = account.index_of(kind.name, object_id)
        if index is None:
            raise errors.not_found(kind.name, object_id)
        if not account.is_live(kind.name, index):
            if kind.name == "customer":
                return pretty(tombstone(kind.name, object_id)).encode()
            raise errors.not_found(kind.name, object_id)
        low, high = self.window(kind)
        if not low < (account.created(kind.name, index), index) < high:
            raise errors.not_found(kind.name, object_id)
        return expand(account, kind, account.text(kind.name, index), paths).encode()

    def list_lines(self, account: Account, parameters: Parameters, invoice_id: str) -> bytes:
        """Answer the list of an invoice's lines, in the invoice's order."""
        parameters.check_names((), is_list=True)
        check_paths(None, parameters.texts("expand"), is_list=True)
        index = account.index_of("invoice", invoice_id)
        if index is None or not account.is_live("invoice", index):
            raise errors.not_found("invoice", invoice_id)
        texts, has_more = page_of_lines(account.lines(index), parameters)
        return list_text(texts, has_more, f"/v1/invoices/{invoice_id}/lines")

    def get_account(self, account: Account, parameters: Parameters) -> bytes:
        """Answer the read of an account. Source: "The Account object"."""
        parameters.check_names((), is_list=False)
        return pretty(
            {
                "id": account.id,
                "object": "account",
                "business_profile": {"mcc": "5943", "name": "Harbor Paper 紙", "url": None},
                "business_type": "company",
                "capabilities": {"card_payments": "active", "transfers": "active"},
                "charges_enabled": True,
                "controller": {"type": "account"},
                "country": "US",
                "created": account.ledger.layout.created("product", 0),
                "default_currency": "usd",
                "details_submitted": True,
                "email": "owner@example.com",
                "metadata": {},
                "payouts_enabled": True,
                "settings": {"dashboard": {"display_name": "Harbor", "timezone": "Etc/UTC"}},
                "type": "standard",
            }
        ).encode()

    def window(self, kind: Kind) -> tuple[Key, Key]:
        """Return the keys between which objects can be seen: events come late and don't stay."""
        if kind.name != "event":
            return _EVERYTHING
        now = self._books.now()
        latest = now - self._books.late_event_seconds
        return (now - EVENT_DAYS * 86_400, -math.inf), (latest, math.inf)


def _key(request: Request) -> str:
    """Return the API key, from HTTP Basic or Bearer authentication; a bad one is 401."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    key = value.strip()
    if scheme.lower() == "basic":
        try:
            key = base64.b64decode(key).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    elif scheme.lower() != "bearer":
        key = ""
    if not key:
        raise errors.unauthorized("You did not provide an API key.")
    if "expired" in key:
        message = f"Expired API Key provided: {errors.mask(key)}"
        raise errors.unauthorized(message, "api_key_expired")
    if not _KEY.fullmatch(key):
        raise errors.unauthorized(f"Invalid API Key provided: {errors.mask(key)}")
    return key


def _route(parts: list[str]) -> tuple[str, str, Handler] | None:
    """Return the method, the permission it needs and the handler for a path."""
    match parts:
        case ["account"] | ["accounts", _] if parts[-1]:
            return "account.get", "account", StripeApi.get_account
        case ["invoices", invoice_id, "lines"]:
            return "invoices.lines", "invoice", _bound(StripeApi.list_lines, invoice_id)
        case [plural] if plural in _KINDS:
            kind = _KINDS[plural]
            return f"{plural}.list", kind.name, _bound(StripeApi.list_objects, kind)
        case [plural, object_id] if plural in _KINDS and object_id:
            kind = _KINDS[plural]
            return f"{plural}.get", kind.name, _bound(StripeApi.get_object, kind, object_id)
    return None


def _bound(handler: Callable[..., bytes], *arguments: Any) -> Handler:
    return lambda api, account, parameters: handler(api, account, parameters, *arguments)


def _methods() -> list[str]:
    names = [f"{plural}.{verb}" for plural in _KINDS for verb in ("list", "get")]
    return [*names, "invoices.lines", "account.get"]
