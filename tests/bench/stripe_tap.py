"""tap-stripe against another address than Stripe's: `python stripe_tap.py BASE_URL [option ...]`.

Runs in the tap's own environment (see stripe_rivals.py); the options are the tap's.
"""

import sys

import stripe
import tap_stripe  # type: ignore[import-not-found, unused-ignore]


def main(base_url: str) -> None:
    # The tap has no option for the address.
    stripe.api_base = base_url
    # Its metrics take the endpoint's name out of https://api.stripe.com/v1/… and fail without.
    tap_stripe.apply_request_timer_to_client = lambda client: None
    tap_stripe.main()


if __name__ == "__main__":
    main(sys.argv.pop(1))
