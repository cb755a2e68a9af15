"""Objects: what one is, its key, the gate it passes, what a source yields, and what is erased.

May import settings and errors.
"""
