{# Lets DuckDB's checkpoints merge small row groups during a MERGE, unless the store has payloads that
   are too large for that: 2,048 rows of a row group are written at once. A comment on the queue says
   so, from the first MERGE in slices on. The loaders keep checkpoints from it at any other time, as
   the queue has small row groups with every payload in them. #}
{% macro set_vacuum(may_be) -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set queue = source('landing', 'landed_objects') -%}
    {%- if not may_be -%}
        {%- do run_query('comment on table ' ~ queue.render() ~ " is 'large payloads'") -%}
    {%- endif -%}
    {%- set holds_large -%}
select comment is not null
from duckdb_tables()
where
    database_name = current_database()
    and schema_name = '{{ queue.schema }}'
    and table_name = '{{ queue.identifier }}'
    {%- endset -%}
    {%- if not run_query(holds_large).rows[0][0] -%}
        {%- do run_query("reset global max_vacuum_tasks") -%}
    {%- else -%}
        {%- do run_query("set global max_vacuum_tasks = 0") -%}
        {%- do rewrite_split(source('telemetry', 'event_log')) -%}
        {%- do rewrite_split(source('landing', '_dlt_loads')) -%}
    {%- endif -%}
{%- endmacro %}

{# Rows that come one by one without a merge of row groups take 256 KiB of the file each, and time to
   read: when there are many, they are written anew, as they are. #}
{% macro rewrite_split(table) -%}
    {%- set row_groups -%}
select count(distinct row_group_id)
from pragma_storage_info('"{{ table.schema }}"."{{ table.identifier }}"')
    {%- endset -%}
    {%- if run_query(row_groups).rows[0][0] > 200 -%}
        {%- set name = table.render() -%}
        {#- dbt's transaction is open: without one, the first statement would fail -#}
        {%- do run_query("
commit;
begin transaction;
create or replace temporary table kept as from " ~ name ~ ";
delete from " ~ name ~ ";
insert into " ~ name ~ " from kept;
drop table kept;
commit;
begin transaction
        ") -%}
    {%- endif -%}
{%- endmacro %}
