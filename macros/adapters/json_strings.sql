{# A JSON array of strings as an array of strings; an absent one is empty. #}
{% macro json_strings(json, path) -%}
    {{ return(adapter.dispatch('json_strings', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_strings(json, path) -%}
    coalesce(json_extract_string({{ json }}, '{{ path }}[*]'), cast([] as varchar[]))
{%- endmacro %}

{% macro bigquery__json_strings(json, path) -%}
    coalesce(json_value_array({{ json }}, '{{ path }}'), cast([] as array<string>))
{%- endmacro %}
