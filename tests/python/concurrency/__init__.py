"""Several runs at once on one DuckDB file: true counts, a true log, nobody starves."""
