"""Upkeep of what is stored: verify, erase, retain, copy.

May import ingestion, monitoring and what is below.
"""
