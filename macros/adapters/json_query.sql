{% macro json_query(json, path) -%}
    {{ return(adapter.dispatch('json_query', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_query(json, path) -%}
    json_extract({{ json }}, '{{ path }}')
{%- endmacro %}

{% macro bigquery__json_query(json, path) -%}
    json_query({{ json }}, '{{ path }}')
{%- endmacro %}
