"""The sync of a Stripe account: the event feed, listings, what a run leaves for the next."""
