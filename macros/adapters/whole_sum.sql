{# The sum of whole numbers as a whole number, NULL of none: DuckDB's own is wider than a column. #}
{% macro whole_sum(number) -%}
    cast(sum({{ number }}) as {{ column_type('integer') }})
{%- endmacro %}
