"""Gmail: every message, label and attachment of a mailbox, and every change to them."""
