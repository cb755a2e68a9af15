{% macro json_float(json, path) -%}
    {{ return(adapter.dispatch('json_float', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_float(json, path) -%}
    try_cast({{ json_text(json, path) }} as double)
{%- endmacro %}

{% macro bigquery__json_float(json, path) -%}
    safe_cast({{ json_text(json, path) }} as float64)
{%- endmacro %}
