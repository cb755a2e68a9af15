{# A JSON value written as JSON text. #}
{% macro json_as_text(json) -%}
    {{ return(adapter.dispatch('json_as_text', 'landfall')(json)) }}
{%- endmacro %}

{% macro duckdb__json_as_text(json) -%}
    cast({{ json }} as varchar)
{%- endmacro %}

{% macro bigquery__json_as_text(json) -%}
    to_json_string({{ json }})
{%- endmacro %}
