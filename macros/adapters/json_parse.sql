{% macro json_parse(text) -%}
    {{ return(adapter.dispatch('json_parse', 'landfall')(text)) }}
{%- endmacro %}

{% macro duckdb__json_parse(text) -%}
    cast({{ text }} as json)
{%- endmacro %}

{# The landing gate lets only numbers pass that float64 and int64 keep, so nothing is rounded here. #}
{% macro bigquery__json_parse(text) -%}
    parse_json({{ text }}, wide_number_mode => 'round')
{%- endmacro %}
