{% macro json_parse(text) -%}
    {{ return(adapter.dispatch('json_parse', 'landfall')(text)) }}
{%- endmacro %}

{% macro duckdb__json_parse(text) -%}
    cast({{ text }} as json)
{%- endmacro %}

{# `exact` is the default: a number that would change is an error. The landing gate has
   refused such numbers before, so there is none here. #}
{% macro bigquery__json_parse(text) -%}
    parse_json({{ text }})
{%- endmacro %}
