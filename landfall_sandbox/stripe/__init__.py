"""The read side of the Stripe API: a generated account, its changes, and its answers."""
