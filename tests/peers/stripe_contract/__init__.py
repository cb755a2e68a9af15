"""What reading Stripe relies on, of our sandbox and of a stand-in that somebody else wrote.

Every test runs against both, through Stripe's own SDK where that does not hide what is tested.
Where they differ, KNOWN_DIFFERENCES says so and why; a difference that is no more fails.
"""
