"""Settings: the target, connections and their options, times, and files that others must not read.

May import errors.
"""
