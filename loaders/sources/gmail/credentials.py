"""google-auth credentials of a Gmail connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loaders.config import PROJECT_DIR, Connection
from loaders.errors import ConfigError
from loaders.sources.gmail.config import SCOPES


def load_credentials(connection: Connection) -> Any:
    """google-auth credentials of a connection.

    In this order: `access_token`; `token_file` (authorised user, as gcloud and
    google-auth-oauthlib write it); `service_account_file` with an optional `subject`;
    application default credentials. Raises ConfigError.
    """
    import google.auth
    import google.auth.exceptions
    import google.oauth2.credentials
    import google.oauth2.service_account

    token = connection.secret("access_token")
    if token:
        return google.oauth2.credentials.Credentials(token=token)
    try:
        token_file = connection.get("token_file")
        if token_file:
            return google.oauth2.credentials.Credentials.from_authorized_user_file(
                str(_path(token_file)), SCOPES
            )
        key_file = connection.get("service_account_file")
        if key_file:
            credentials = google.oauth2.service_account.Credentials.from_service_account_file(
                str(_path(key_file)), scopes=SCOPES
            )
            subject = connection.get("subject")
            return credentials.with_subject(subject) if subject else credentials
        return google.auth.default(scopes=SCOPES)[0]
    except (OSError, ValueError, google.auth.exceptions.GoogleAuthError) as error:
        raise ConfigError(
            f"gmail: connection '{connection.name}' has no usable credentials"
            f" ({type(error).__name__}); set access_token, token_file or service_account_file in"
            f" [sources.gmail.{connection.name}]"
        ) from error


def _path(value: str) -> Path:
    return PROJECT_DIR / Path(value).expanduser()
