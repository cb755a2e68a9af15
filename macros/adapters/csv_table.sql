{# dbt-bigquery drops a seed's table and loads it anew: a test of another job that reads it
   meanwhile finds none. One CREATE OR REPLACE has no such moment. The seeds here are short. #}
{% macro bigquery__create_csv_table(model, agate_table) -%}
    {{ return(replace_csv_table(model, agate_table)) }}
{%- endmacro %}

{% macro bigquery__reset_csv_table(model, full_refresh, old_relation, agate_table) -%}
    {{ return(replace_csv_table(model, agate_table)) }}
{%- endmacro %}

{# The rows came with the table. #}
{% macro bigquery__load_csv_rows(model, agate_table) -%}
    {{ return('') }}
{%- endmacro %}

{% macro replace_csv_table(model, agate_table) -%}
    {%- set types = model.config.column_types -%}
    {%- set names = agate_table.column_names -%}
    {%- call statement('replace_csv_table') -%}
create or replace table {{ this.render() }} (
    {%- for name in names %}
    {{ name }} {{ types[name] }}{{ ',' if not loop.last }}
    {%- endfor %}
)
        {%- for row in agate_table.rows %}
{{ 'as' if loop.first else 'union all' }}
select
            {%- for name in names %}
    cast({{ text_literal(row[name]) }} as {{ types[name] }}) as {{ name }}{{ ',' if not loop.last }}
            {%- endfor %}
        {%- endfor %}
    {%- endcall -%}
    {{ return('') }}
{%- endmacro %}
