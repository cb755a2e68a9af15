"""google-auth credentials of a connection: where they are found, and that they last."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth
import google.auth.credentials
import google.auth.exceptions
import google.oauth2.credentials
import google.oauth2.service_account

from loaders.errors import ConfigError, register_secret
from loaders.settings.connection import Connection
from loaders.settings.options import section
from loaders.settings.places import PROJECT_DIR, shown, token_path
from loaders.sources.google_api import GoogleApi

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FoundCredentials:
    """google-auth credentials, what they are and where they were found."""

    credentials: Any
    kind: str
    origin: str


def find_credentials(connection: Connection, api: GoogleApi) -> FoundCredentials:
    """The credentials of a connection to an API, safe to share between threads.

    In this order: `access_token`; `token_file` (authorised user, as gcloud and
    google-auth-oauthlib write it), or the token that `run.py auth` has stored;
    `service_account_file` with an optional `subject`; application default credentials.
    Raises ConfigError.
    """
    token = connection.secret("access_token")
    if token:
        return FoundCredentials(
            google.oauth2.credentials.Credentials(token=token), "access token", "access_token"
        )
    path = token_file(connection)
    if connection.get("token_file") or path.exists():
        with _explained(f"{shown(path)} is not a token", api.authorise, connection):
            return FoundCredentials(UserCredentials.read(path), "authorised user", shown(path))
    if connection.get("service_account_file"):
        return _service_account(connection, api)
    with _explained("no credentials found", f"{api.authorise}, or see {api.page}", connection):
        return FoundCredentials(
            google.auth.default(scopes=api.scopes)[0],
            "application default credentials",
            os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "gcloud or this machine"),
        )


def token_file(connection: Connection) -> Path:
    """Where the connection's token is, or would be stored."""
    configured = connection.get("token_file")
    if configured:
        return local_path(configured)
    return token_path(connection.source_system, connection.name)


def local_path(value: str) -> Path:
    """A path from the configuration; a relative one is relative to the project."""
    return PROJECT_DIR / Path(value).expanduser()


def write_private(path: Path, text: str) -> None:
    """Put a file in place in one step, readable by its owner alone. Raises OSError."""
    path = path.resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "w") as file:
            # Root, run once by hand, must not take the file from the account that needs it.
            with contextlib.suppress(OSError):
                owner = path.stat()
                os.fchown(handle, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class _SharedCredentials(google.auth.credentials.Credentials):
    """Refreshed by one of the threads that share them; no message shows what that brings."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._refresh_lock = threading.Lock()

    def refresh(self, request: Any) -> None:
        """Get a new access token, unless another thread has just done so."""
        was_valid, token = self.valid, self.token
        with self._refresh_lock:
            if self.valid and not (was_valid and self.token == token):
                return
            super().refresh(request)  # type: ignore[no-untyped-call, safe-super]
            register_secret(self.token)
            self._keep()

    def _keep(self) -> None:
        """Called after a refresh, by one thread at a time."""


class UserCredentials(_SharedCredentials, google.oauth2.credentials.Credentials):
    """An authorised user whose token is in a file; what a refresh brings is written back."""

    _path: Path | None = None
    _kept: str | None = None
    """The refresh token that the file holds as far as we know."""

    @classmethod
    def read(cls, path: Path) -> UserCredentials:
        """The credentials in a file. Raises OSError and ValueError."""
        info = json.loads(path.read_text())
        if not isinstance(info, dict):
            raise ValueError("expected a JSON object")
        for name in ("token", "refresh_token", "client_secret"):
            register_secret(info.get(name))
        found = cls.from_authorized_user_info(info)  # type: ignore[no-untyped-call]
        # google-auth passes over the file's token_uri, and a copy has no expiry.
        credentials: UserCredentials = found.with_token_uri(info.get("token_uri", found.token_uri))
        credentials.expiry = found.expiry
        credentials._path, credentials._kept = path, info["refresh_token"]
        return credentials

    def _keep(self) -> None:
        register_secret(self.refresh_token)
        if self._path is None:
            return
        try:
            stored = json.loads(self._path.read_text())
            # Authorised anew during the run: what is there now must not be undone.
            if stored["refresh_token"] != self._kept:
                return
            fresh = json.loads(self.to_json())  # type: ignore[no-untyped-call]
            changed = {name: fresh.get(name) for name in ("token", "refresh_token", "expiry")}
            write_private(self._path, json.dumps({**stored, **changed}))
            self._kept = self.refresh_token
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning(
                "%s: the refreshed token could not be stored (%s);"
                " make the file and its directory writable",
                self._path,
                type(error).__name__,
            )
            self._path = None  # one warning is enough


class ServiceAccountCredentials(_SharedCredentials, google.oauth2.service_account.Credentials):
    """A service account, which gets itself a new token for each run."""


def _service_account(connection: Connection, api: GoogleApi) -> FoundCredentials:
    path = local_path(connection.get("service_account_file"))
    subject = connection.get("subject")
    step = f"see service_account_file in [{section(connection)}]"
    with _explained(f"{shown(path)} is not a service account's key", step, connection):
        info = json.loads(path.read_text())
        if not isinstance(info, dict):
            raise ValueError("expected a JSON object")
        register_secret(str(info.get("private_key")))
        credentials = ServiceAccountCredentials.from_service_account_info(  # type: ignore[no-untyped-call]
            info, scopes=api.scopes, subject=subject
        )
    kind = f"service account for {subject}" if subject else "service account"
    return FoundCredentials(credentials, kind, shown(path))


@contextlib.contextmanager
def _explained(problem: str, next_step: str, connection: Connection) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, google.auth.exceptions.GoogleAuthError) as error:
        step = next_step.format(connection=connection.name)
        source = connection.source_system
        raise ConfigError(f"{source}: {problem} ({type(error).__name__}); {step}") from error
