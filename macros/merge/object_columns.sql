{# The columns of raw_objects, for staging, the model and both MERGEs: of the key, of the newest
   state as it was landed, of that state as it is kept, of all states, of the content, of the run
   whose MERGE writes. Who adds what a source says of an object adds it to `landed`. #}
{% macro object_columns() -%}
    {{ return({
        'key': ['idem_key', 'source_system', 'connection_name', 'object_type', 'external_id'],
        'landed': ['payload_hash'],
        'current': ['changed_at', 'deleted_at', 'changed_by'],
        'history': ['object_created_at', 'first_seen', 'last_seen'],
        'content': ['payload'],
        'merge': ['merged_by', 'inserted_by', 'last_action'],
    }) }}
{%- endmacro %}
