{# A table expression: one row per item of a JSON array, in the column `item` (JSON). #}
{% macro json_array_items(json, path) -%}
    {{ return(adapter.dispatch('json_array_items', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_array_items(json, path) -%}
    unnest(json_extract({{ json }}, '{{ path }}[*]')) as items (item)
{%- endmacro %}

{% macro bigquery__json_array_items(json, path) -%}
    unnest(json_query_array({{ json }}, '{{ path }}')) as item
{%- endmacro %}
