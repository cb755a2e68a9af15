"""What Stripe is among the sources."""

from __future__ import annotations

from loaders.sources.definition import Definition
from loaders.sources.stripe.kinds import OBJECT_TYPES
from loaders.sources.stripe.options import OPTIONS

SOURCE = Definition(
    name="stripe",
    summary="fetch a Stripe account, merge it, check it",
    unit="charges",
    options=OPTIONS,
    object_types=tuple(OBJECT_TYPES),
    variables_of_others=r"(?i)STRIPE_\w+",
)
