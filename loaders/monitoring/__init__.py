"""How the connections are: health, dashboard, alerts.

May import jobs and what is below; not ingestion.
"""
