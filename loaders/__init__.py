"""Landfall: Gmail and Stripe objects, brought into a warehouse exactly once."""
