{{ config(tags=['each_run']) }}
-- A row is an ended run without exactly one start and one effective end, in that order.
{{ lifecycle_violations('recent') }}
