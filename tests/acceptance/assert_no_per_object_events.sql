{{ config(tags=['each_run']) }}
-- A row is a run that wrote more than three events, or one of an unknown type.
{{ event_count_violations('recent') }}
