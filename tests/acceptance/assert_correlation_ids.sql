{{ config(tags=['each_run']) }}
-- A row is a correlation_id that is empty or shared by two runs.
{{ correlation_id_violations('recent') }}
