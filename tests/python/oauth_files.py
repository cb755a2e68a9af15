"""Files of credentials for tests, whose token endpoint is a sandbox's."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from loaders.sources.gmail.options import SCOPES

CANARY = "canary-5e1d-do-not-print"
CLIENT_SECRET = f"{CANARY}-client-secret"


def service_account_info(base_url: str) -> dict[str, Any]:
    """A service account's key file."""
    return {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "key-1",
        "private_key": _private_key(),
        "client_email": "loader@a-project.iam.gserviceaccount.com",
        "client_id": "100000000000000000001",
        "token_uri": f"{base_url}/token",
    }


def client_secrets_info(base_url: str) -> dict[str, Any]:
    """The file of an OAuth client of type Desktop app, as Google Cloud gives it out."""
    return {
        "installed": {
            "client_id": "client-1.apps.googleusercontent.com",
            "project_id": "a-project",
            "auth_uri": f"{base_url}/o/oauth2/auth",
            "token_uri": f"{base_url}/token",
            "client_secret": CLIENT_SECRET,
            "redirect_uris": ["http://localhost"],
        }
    }


def token_info(base_url: str, refresh_token: str = f"{CANARY}-refresh", **members: Any) -> Any:
    """An authorised user's token file; its access token has expired."""
    return {
        "token": f"{CANARY}-access",
        "refresh_token": refresh_token,
        "token_uri": f"{base_url}/token",
        "client_id": "client-1.apps.googleusercontent.com",
        "client_secret": CLIENT_SECRET,
        "scopes": list(SCOPES),
        "expiry": "2026-01-01T00:00:00Z",
        **members,
    }


def write_json(path: Path, value: Any) -> Path:
    """Write a value as JSON, its directory with it, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    path.chmod(0o600)
    return path


@functools.cache
def _private_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
