"""Alerts: who is told, once an incident and once when it is over, by any of Apprise's services."""
