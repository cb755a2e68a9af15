{# The scalar at a JSON path, as text; NULL for an object or an array, too. #}
{% macro json_text(json, path) -%}
    {{ return(adapter.dispatch('json_text', 'landfall')(json, path)) }}
{%- endmacro %}

{# json_extract_string alone writes a whole object as text. #}
{% macro duckdb__json_text(json, path) -%}
    json_extract_string(json_value({{ json }}, '{{ path }}'), '$')
{%- endmacro %}

{% macro bigquery__json_text(json, path) -%}
    json_value({{ json }}, '{{ path }}')
{%- endmacro %}
