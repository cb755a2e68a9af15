{% macro json_text(json, path) -%}
    {{ return(adapter.dispatch('json_text', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_text(json, path) -%}
    json_extract_string({{ json }}, '{{ path }}')
{%- endmacro %}

{% macro bigquery__json_text(json, path) -%}
    json_value({{ json }}, '{{ path }}')
{%- endmacro %}
