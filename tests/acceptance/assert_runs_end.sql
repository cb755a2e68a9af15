-- A row is a run that has outlived its timeout without an end: the next run of
-- loaders/run.py closes it, if it began in the last 30 days.
{{ unended_violations('recent') }}
