{# Takes from the queue what was erased: the merge leaves it out. #}
{% macro drain_erased() -%}
delete from {{ source('landing', 'landed_objects') }}
where {{ sha256_hex('idem_key') }} in (
    select key_hash from {{ source('erasure', 'erasures') }}
)
{%- endmacro %}
