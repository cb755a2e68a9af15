"""The sync of a mailbox: history, its expiry, snapshots, what a run leaves for the next."""
