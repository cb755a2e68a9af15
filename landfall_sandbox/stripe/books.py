"""All accounts the sandbox stands in for, and the clock they share."""

import time
from pathlib import Path

from landfall_sandbox.stripe.account import Account
from landfall_sandbox.stripe.ledger import Ledger
from landfall_sandbox.stripe.overlay import StripeFile

CONNECTED_ACCOUNT = "acct_sandbox_connected"
DEFAULT_CHARGES = 200
_CONNECTED_SHARE = 5
_MAX_CONNECTED = 1000


class Books:
    """The platform's account and one connected to it."""

    def __init__(self, path: Path | None, seed: int, charges: int) -> None:
        """Open or create the file (None: memory); an existing one decides all the rest."""
        self.file = StripeFile(path)
        self.seed = self.file.setting("seed", seed)
        self.charges = self.file.setting("charges", charges)
        anchor = self.file.anchor()
        own = Ledger(self.seed, self.charges, anchor)
        smaller = min(self.charges // _CONNECTED_SHARE, _MAX_CONNECTED)
        connected = Ledger(self.seed + 1_000_003, smaller, anchor)
        self.platform = Account(self.file, 0, own, own.account_id)
        self.accounts = {
            own.account_id: self.platform,
            CONNECTED_ACCOUNT: Account(self.file, 1, connected, CONNECTED_ACCOUNT),
        }
        self.clock_offset = 0.0
        self.date_offset = 0.0
        self.late_event_seconds = 0.0

    def now(self) -> int:
        """Return the server's time in epoch seconds."""
        return int(time.time() + self.clock_offset)

    def account(self, account_id: str | None) -> Account:
        """Return an account, by default the platform's. Raises KeyError for an unknown one."""
        return self.platform if account_id is None else self.accounts[account_id]
