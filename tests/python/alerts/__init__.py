"""Alerts: once an incident, once when it is over, at a real webhook; never a matter of the job."""
