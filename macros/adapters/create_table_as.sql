{# dbt-duckdb copies an incremental model's rows into a temporary table before it merges
   them. For raw_objects that would be every payload once more, and a decision taken in
   another statement than the MERGE: a view over the same SQL serves it instead. #}
{% macro duckdb__create_table_as(temporary, relation, compiled_code, language='sql') -%}
    {%- if temporary and model.name == 'raw_objects' -%}
        create or replace temporary view {{ relation }} as (
            {{ compiled_code }}
        )
    {%- else -%}
        {{ return(dbt.duckdb__create_table_as(
            temporary, relation, compiled_code, language, **kwargs
        )) }}
    {%- endif -%}
{%- endmacro %}
