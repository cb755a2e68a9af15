"""Gmail: every message, label and attachment of a mailbox, and every change to them."""

from loaders.sources.gmail.credentials import load_credentials
from loaders.sources.gmail.options import FORMATS, SCOPES, GmailConfig
from loaders.sources.gmail.source import GmailSource
from loaders.sources.gmail.sync import MESSAGES

__all__ = ["FORMATS", "MESSAGES", "SCOPES", "GmailConfig", "GmailSource", "load_credentials"]
