"""The warehouse: DuckDB and BigQuery outside of dbt, and what they hold of a connection.

May import objects and what is below.
"""
