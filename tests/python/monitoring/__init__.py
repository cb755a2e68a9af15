"""The monitoring marts, and `run.py status`, which reads them."""
