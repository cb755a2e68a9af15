{# The sum of whole numbers as a whole number, 0 of none: DuckDB's own is wider than a column. #}
{% macro whole_sum(number) -%}
    coalesce(cast(sum({{ number }}) as {{ column_type('integer') }}), 0)
{%- endmacro %}
