"""dbt in this process: bootstrap, build, and whether the monitoring views are current.

May import warehouse and what is below; not sources.
"""
