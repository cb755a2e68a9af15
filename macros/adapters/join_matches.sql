{# A join that gives a row for each match of a pattern in a text. The pattern has one group,
   which is what the row holds, as column `name`. #}
{% macro join_matches(text, pattern, name) -%}
    {{ return(adapter.dispatch('join_matches', 'landfall')(text, pattern, name)) }}
{%- endmacro %}

{% macro duckdb__join_matches(text, pattern, name) -%}
    cross join unnest(regexp_extract_all({{ text }}, '{{ pattern }}', 1))
        as matches ({{ name }})
{%- endmacro %}

{% macro bigquery__join_matches(text, pattern, name) -%}
    cross join unnest(regexp_extract_all({{ text }}, r'{{ pattern }}')) as {{ name }}
{%- endmacro %}
