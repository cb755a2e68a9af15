"""The monitoring marts as one page, a file that needs nothing else."""
