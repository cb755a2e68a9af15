{% macro uuid() -%}
    {{ return(adapter.dispatch('uuid', 'landfall')()) }}
{%- endmacro %}

{% macro duckdb__uuid() -%}
    cast(uuid() as varchar)
{%- endmacro %}

{% macro bigquery__uuid() -%}
    generate_uuid()
{%- endmacro %}
