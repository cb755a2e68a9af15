{# Whether a text contains a match of a regular expression (RE2 on both warehouses). #}
{% macro text_matches(text, pattern) -%}
    {{ return(adapter.dispatch('text_matches', 'landfall')(text, pattern)) }}
{%- endmacro %}

{% macro duckdb__text_matches(text, pattern) -%}
    regexp_matches({{ text }}, '{{ pattern }}')
{%- endmacro %}

{% macro bigquery__text_matches(text, pattern) -%}
    regexp_contains({{ text }}, r'{{ pattern }}')
{%- endmacro %}
