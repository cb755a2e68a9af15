"""Sources: their contract, what they share, and a package for each, which knows no other.

May import warehouse and what is below; not transform.
"""
