{# Lets DuckDB's checkpoints merge small row groups during a MERGE, unless payloads are too large for
   that: 2,048 rows of a row group are written at once. The loaders keep them from it at any other
   time, as the queue has small row groups with every payload in them. #}
{% macro set_vacuum(may_be) -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {#- a payload is held twice, and compressed to a sixteenth at most -#}
    {%- set holds_large -%}
with row_groups as (
    select
        row_group_id,
        max(start + count) as row_count,
        count(distinct block_id) + sum(len(additional_block_ids)) as blocks
    from pragma_storage_info('"{{ this.schema }}"."{{ this.identifier }}"')
    where column_name = 'payload'
    group by row_group_id
),

placed as (
    select
        blocks * least(1, 2048 / row_count) as blocks,
        sum(row_count) over (order by row_group_id) - row_count as first_row
    from row_groups
),

neighbours as (
    select
        sum(blocks) over (
            order by first_row range between 2047 preceding and current row
        ) as blocks
    from placed
)

select
    coalesce(max(blocks), 0) * 256 * 1024 * 16 * 2
    > parse_formatted_bytes(current_setting('memory_limit'))
from neighbours
    {%- endset -%}
    {%- if may_be and not run_query(holds_large).rows[0][0] -%}
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
