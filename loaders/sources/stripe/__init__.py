"""Stripe: every object of an account, and every change to them."""

from loaders.sources.stripe.kinds import KINDS, OBJECT_TYPES
from loaders.sources.stripe.options import StripeConfig
from loaders.sources.stripe.source import StripeSource

__all__ = ["KINDS", "OBJECT_TYPES", "StripeConfig", "StripeSource"]
