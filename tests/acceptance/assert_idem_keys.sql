-- A row is an event with an idem_key; that raw_objects' keys are unique is tested beside the model.
{{ idem_key_violations('recent') }}
