-- A row is a run whose end says something else than the rows that it inserted, or a
-- run of which the log knows nothing. `--full-resync` of the connection reads what is
-- missing again, which makes up for it; at whatever else it is somebody has to look.
{{ store_violations('recent') }}
