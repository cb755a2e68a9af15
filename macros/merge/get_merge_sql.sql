{# dbt asks these for the MERGE of every incremental model; only raw_objects has its own. #}

{# DuckDB guesses which side of a join is smaller and holds that in memory. A wrong guess
   holds every payload of the batch: for this statement it is the right side, always. #}
{% macro duckdb__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates=none) -%}
    {%- if model.name == 'raw_objects' -%}
        {%- do run_query("set disabled_optimizers = 'build_side_probe_side'") -%}
        {#- the loaders keep checkpoints from merging the row groups of a queue not yet drained -#}
        {%- do run_query("reset global max_vacuum_tasks") -%}
        {{ merge_objects(target, source) }};
        reset disabled_optimizers
    {%- else -%}
        {{ return(dbt.duckdb__get_merge_sql(
            target, source, unique_key, dest_columns, incremental_predicates
        )) }}
    {%- endif -%}
{%- endmacro %}

{% macro bigquery__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates=none) -%}
    {%- if model.name == 'raw_objects' -%}
        {{ return(merge_objects(target, source)) }}
    {%- endif -%}
    {{ return(dbt.default__get_merge_sql(
        target, source, unique_key, dest_columns, incremental_predicates
    )) }}
{%- endmacro %}
