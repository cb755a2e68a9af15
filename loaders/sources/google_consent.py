"""The owner's consent to what a source reads, and the token that it gives.

OAuth 2.0 for installed apps.

Source: RFC 8252; https://developers.google.com/identity/protocols/oauth2/native-app
"""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.parse
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google_auth_oauthlib.flow import InstalledAppFlow, WSGITimeoutError
from oauthlib.oauth2.rfc6749 import errors as oauth_errors

from loaders.errors import (
    ConfigError,
    Interrupted,
    SourceError,
    TransientSourceError,
    UsageError,
    register_secret,
)
from loaders.objects.idem_keys import key_prefix
from loaders.settings.connection import SANDBOX, Connection
from loaders.settings.options import section
from loaders.settings.places import shown
from loaders.sources.connections import load_connection
from loaders.sources.google_api import Consent, GoogleApi
from loaders.sources.google_credentials import local_path, token_file, write_private

BROWSER_SECONDS = 600
PASTE_PORT = 8765
"""Of the address that the browser ends at without a server here: nothing has to listen."""
_TOKEN_SECONDS = 60

_IN_THIS_BROWSER = f"""\
Allow Landfall to read {{what}} in the browser that opens now, or at this address:

  {{url}}

waiting for the browser, {BROWSER_SECONDS // 60} minutes at most; on a machine without one: \
Ctrl-C, then --no-browser
"""
_IN_ANY_BROWSER = f"""\
Open this address in any browser, on any machine, and allow Landfall to read {{what}}:

  {{url}}

The browser then ends at an address that begins with http://localhost:{PASTE_PORT}/ and shows
an error: nothing listens there. Copy that address from the browser and paste it here.
"""
_DONE = "The answer has reached Landfall; see its terminal. You may close this window."


def connection_to_authorise(source_system: str, name: str | None) -> Connection:
    """The connection to get a token for, configured or new; by default the only one there is.

    Raises UsageError.
    """
    if name is None:
        connection = load_connection(source_system, None)
        if connection.is_sandbox:
            raise UsageError(
                f"{source_system}: no connection is there yet; name a new one: --connection NAME"
            )
        return connection
    try:
        key_prefix(source_system, name, "any")
    except ValueError as error:
        raise UsageError(f"--connection: {error}") from error
    if name == SANDBOX:
        raise UsageError(f"--connection: '{SANDBOX}' is the stand-in's name; choose another")
    return Connection(source_system, name)


def authorise(
    connection: Connection,
    consent: Consent,
    client_secrets: Path | None,
    *,
    has_browser: bool = True,
) -> None:
    """Ask the owner for consent, try the token, and store it.

    Prints what the owner has to do, and whose data it is. Raises LandfallError, with nothing
    stored.
    """
    source = connection.source_system
    if connection.get("access_token"):
        raise ConfigError(
            f"{source}: connection '{connection.name}' has an access_token, which is used before"
            " any other credentials; remove it first"
        )
    flow = _flow(connection, consent.api, client_secrets)
    with _explained(source):
        _obtain_token(flow, consent.what, has_browser)
    credentials = _granted(flow, source, consent.api.scopes)
    whose = consent.prove(connection, credentials)
    path = token_file(connection)
    try:
        write_private(path, credentials.to_json())
    except OSError as error:
        raise ConfigError(
            f"{source}: {shown(path)}: cannot be written ({type(error).__name__}); make its"
            " directory writable and run this again"
        ) from error
    print(
        f"{whose}\ntoken:   {shown(path)}, readable by you alone\n"
        f"next:    python loaders/run.py check {source} --connection {connection.name}"
    )


def _flow(connection: Connection, api: GoogleApi, client_secrets: Path | None) -> Any:
    option = connection.get("client_secrets_file")
    path = client_secrets or (local_path(option) if option else None)
    if path is None:
        raise UsageError(
            f"{connection.source_system}: which OAuth client? give its file with --client-secrets,"
            f" or set client_secrets_file in [{section(connection)}]; see {api.page}"
        )
    try:
        client = json.loads(path.read_text())
        register_secret(client["installed"]["client_secret"])
        return InstalledAppFlow.from_client_config(client, scopes=api.scopes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: expected the JSON file of an OAuth client of type Desktop app"
            f" ({type(error).__name__}); see {api.page}"
        ) from error


def _obtain_token(flow: Any, what: str, has_browser: bool) -> None:
    # Google gives a refresh token with the first consent only, unless consent is asked for.
    asked = {"access_type": "offline", "prompt": "consent"}
    try:
        if has_browser:
            flow.run_local_server(
                port=0,
                authorization_prompt_message=_IN_THIS_BROWSER.replace("{what}", what),
                success_message=_DONE,
                timeout_seconds=BROWSER_SECONDS,
                **asked,
            )
            return
        flow.redirect_uri = f"http://localhost:{PASTE_PORT}/"
        print(_IN_ANY_BROWSER.format(what=what, url=flow.authorization_url(**asked)[0]))
        query = input("address: ").strip().partition("#")[0].partition("?")[2]
        register_secret(dict(urllib.parse.parse_qsl(query)).get("code"))
        # https: oauthlib takes no answer from an address without, not even this one.
        answer = f"https://localhost/?{query}"
        flow.fetch_token(authorization_response=answer, timeout=_TOKEN_SECONDS)
    except Warning as changed:
        # oauthlib's way to say that other scopes were granted, which may be more of them.
        flow.oauth2session.token = changed.token  # type: ignore[attr-defined]


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Whatever keeps the consent from coming, as one clear line."""
    try:
        yield
    except oauth_errors.AccessDeniedError as error:
        raise SourceError(
            f"{source}: access was denied in the browser; run this again, and allow it there"
        ) from error
    except (oauth_errors.MismatchingStateError, oauth_errors.MissingCodeError) as error:
        raise UsageError(
            f"{source}: that is not the answer to this request; run this again, with the address"
            " that the browser ends at this time"
        ) from error
    except (oauth_errors.MissingTokenError, AttributeError, TypeError, ValueError) as error:
        raise TransientSourceError(
            f"{source}: the token endpoint answered neither a token nor OAuth's error (a proxy"
            " or sign-in page?); run this again"
        ) from error
    except oauth_errors.OAuth2Error as error:
        raise SourceError(
            f"{source}: the token endpoint refused: {error.error}; run this again, or see the"
            " OAuth client in Google Cloud"
        ) from error
    except (WSGITimeoutError, webbrowser.Error) as error:
        raise SourceError(
            f"{source}: no answer came from a browser; run this again, on a machine without a"
            " browser with --no-browser"
        ) from error
    except EOFError as error:
        raise UsageError(
            f"{source}: no address was pasted; run this again in a terminal"
        ) from error
    except KeyboardInterrupt as error:
        raise Interrupted(signal.SIGINT) from error
    except OSError as error:
        raise TransientSourceError(
            f"{source}: the token endpoint cannot be reached ({type(error).__name__}); run this"
            " again"
        ) from error


def _granted(flow: Any, source: str, scopes: tuple[str, ...]) -> Any:
    """The credentials, if they can do what a run asks of them."""
    credentials = flow.credentials
    register_secret(credentials.token)
    register_secret(credentials.refresh_token)
    # RFC 6749, section 5.1: without a scope it is the one that was asked for.
    if scopes[0] not in flow.oauth2session.token.get("scope", scopes):
        raise SourceError(
            f"{source}: the scope {scopes[0]} was not granted, nothing is stored; run this again"
            " and tick it in the browser"
        )
    if not credentials.refresh_token:
        raise SourceError(
            f"{source}: no refresh token was granted, nothing is stored; take the app's access away"
            " at https://myaccount.google.com/connections and run this again"
        )
    return credentials
