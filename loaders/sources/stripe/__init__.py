"""Stripe: every object of an account, and every change to them."""
