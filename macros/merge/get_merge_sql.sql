{# dbt asks these for the MERGE of every incremental model; only raw_objects has its own. #}

{% macro duckdb__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates=none) -%}
    {%- if model.name == 'raw_objects' -%}
        {{ return(merge_objects(target, source)) }}
    {%- endif -%}
    {{ return(dbt.duckdb__get_merge_sql(
        target, source, unique_key, dest_columns, incremental_predicates
    )) }}
{%- endmacro %}

{% macro bigquery__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates=none) -%}
    {%- if model.name == 'raw_objects' -%}
        {{ return(merge_objects(target, source)) }}
    {%- endif -%}
    {{ return(dbt.default__get_merge_sql(
        target, source, unique_key, dest_columns, incremental_predicates
    )) }}
{%- endmacro %}
