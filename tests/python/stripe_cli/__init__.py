"""The commands on a Stripe account: what they print, their exit codes, and never the key."""
