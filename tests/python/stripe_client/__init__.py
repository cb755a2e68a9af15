"""Stripe's client: pacing, retries, what refusals become, bodies as they came; and the listing."""
