{{ config(tags=['each_run']) }}
-- A row is a run whose events do not follow each other.
{{ timestamp_violations('recent') }}
