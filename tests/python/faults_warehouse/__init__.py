"""What is kept when the warehouse, the disk or the clock gives way in the middle of a run."""
