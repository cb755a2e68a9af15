"""Canaries in every credential and in objects: no log, event, exception or file shows one.

`stripe_cli/test_key.py`, `test_gmail_credentials.py` and `test_authorization.py` have what a
command prints of one credential; here whole directories are read, byte by byte, and encoded forms
as well.
"""
