"""Tests: of the loaders, of stand-ins by others, of the dashboard; benches; kills; dbt's own."""
