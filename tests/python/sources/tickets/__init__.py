"""Tickets of a help desk: a paged REST list with an `updated` field."""
