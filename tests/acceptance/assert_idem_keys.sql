{{ config(tags=['each_run']) }}
-- A row is an event with an idem_key. That the keys of raw_objects are unique is tested
-- beside the model.
{{ idem_key_violations('recent') }}
