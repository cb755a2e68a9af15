"""A job's life: lease, events, signals, runs that died.

May import sources, transform and what is below.
"""
