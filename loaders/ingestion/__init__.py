"""One run's work: extract, land, merge, check.

May import jobs and what is below; not monitoring.
"""
