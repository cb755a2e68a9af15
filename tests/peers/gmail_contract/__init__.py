"""What GmailClient relies on, of our sandbox and of a stand-in that somebody else wrote.

Every test runs against both. Where they differ, KNOWN_DIFFERENCES says so and why; a difference
that is no more fails.
"""
