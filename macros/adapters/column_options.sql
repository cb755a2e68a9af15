{# What a column's DDL says besides name, type and NOT NULL. #}
{% macro column_options(column) -%}
    {{ return(adapter.dispatch('column_options', 'landfall')(column)) }}
{%- endmacro %}

{# Choosing is most of what a checkpoint costs: 11 s of CPU for 400 MB of mail by default,
   6 s for zstd, which is also the smallest; the queue lives too briefly to be compressed.
   dbt 2 has none where no meta is written. #}
{% macro duckdb__column_options(column) -%}
    {%- set compression = (column.config.meta or {}).get('compression') -%}
    {{ return('using compression ' ~ compression if compression else '') }}
{%- endmacro %}

{% macro bigquery__column_options(column) -%}
    {{ return('options (description = ' ~ (column.description | tojson) ~ ')') }}
{%- endmacro %}
