"""Tests of the loaders, of what stands in for others, of the dashboard; benches; kills; dbt's own."""
