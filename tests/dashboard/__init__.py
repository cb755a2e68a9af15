"""A month of runs, and a browser to look at them with."""
