{# Lower-case names of the columns that a relation has now; none when it is not there. #}
{% macro present_columns(relation) -%}
    {{ return(adapter.dispatch('present_columns', 'landfall')(relation)) }}
{%- endmacro %}

{# adapter.get_columns_in_relation would begin a transaction, and what the hooks write
   would be rolled back with it. #}
{% macro duckdb__present_columns(relation) -%}
    {%- set columns = run_query(
        "select lower(column_name) from information_schema.columns"
        ~ " where table_schema = '" ~ relation.schema ~ "'"
        ~ " and table_name = '" ~ relation.identifier ~ "'"
    ) -%}
    {{ return(columns.columns[0].values() | list) }}
{%- endmacro %}

{% macro bigquery__present_columns(relation) -%}
    {{ return(
        adapter.get_columns_in_relation(relation) | map(attribute='name') | map('lower') | list
    ) }}
{%- endmacro %}
