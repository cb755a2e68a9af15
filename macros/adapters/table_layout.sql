{# Partitions and clusters of a table from the `layout` in its meta. #}
{% macro table_layout(layout) -%}
    {{ return(adapter.dispatch('table_layout', 'landfall')(layout)) }}
{%- endmacro %}

{# DuckDB has neither: its zone maps do this work. #}
{% macro duckdb__table_layout(layout) -%}
    {{ return('') }}
{%- endmacro %}

{% macro bigquery__table_layout(layout) -%}
    {%- if not layout -%}{{ return('') }}{%- endif -%}
    partition by timestamp_trunc({{ layout.partition_by }}, {{ layout.granularity }})
    cluster by {{ layout.cluster_by | join(', ') }}
{%- endmacro %}
