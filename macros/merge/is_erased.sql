{# Whether an object was erased, or the one that it is a part of. #}
{% macro is_erased(key) -%}
    (
        {{ sha256_hex(key) }} in (select key_hash from {{ source('erasure', 'erasures') }})
        or {{ sha256_hex(owner_key(key)) }} in (
            select key_hash from {{ source('erasure', 'erasures') }}
        )
    )
{%- endmacro %}
