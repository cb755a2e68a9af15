{{ config(tags=['each_run']) }}
-- A row is an event that lacks a telemetry field of its type, or whose status and
-- message disagree.
{{ payload_violations('recent') }}
