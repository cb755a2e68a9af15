{# Names of the columns that a relation has, in lower case; none when it is not there. #}
{% macro column_names(relation) -%}
    {{ return(adapter.dispatch('column_names', 'landfall')(relation)) }}
{%- endmacro %}

{# Not adapter.get_columns_in_relation: it leaves a transaction open around the hook that
   asks, and dbt rolls back whatever the on-run-start hooks write in it. #}
{% macro duckdb__column_names(relation) -%}
    {%- set found = run_query(
        "select lower(column_name) from information_schema.columns where table_catalog = '"
        ~ relation.database ~ "' and table_schema = '" ~ relation.schema
        ~ "' and table_name = '" ~ relation.identifier ~ "'"
    ) -%}
    {{ return(found.columns[0].values() | list) }}
{%- endmacro %}

{% macro bigquery__column_names(relation) -%}
    {{ return(
        adapter.get_columns_in_relation(relation) | map(attribute='name') | map('lower') | list
    ) }}
{%- endmacro %}
