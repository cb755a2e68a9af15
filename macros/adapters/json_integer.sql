{% macro json_integer(json, path) -%}
    {{ return(adapter.dispatch('json_integer', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_integer(json, path) -%}
    try_cast({{ json_text(json, path) }} as bigint)
{%- endmacro %}

{% macro bigquery__json_integer(json, path) -%}
    safe_cast({{ json_text(json, path) }} as int64)
{%- endmacro %}
