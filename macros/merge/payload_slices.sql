{# In how many slices DuckDB merges the queue: one, unless 2,048 rows hold more than a quarter of its
   memory. Then `merge_slices` says which slice a key is in, by where its newest payload lies in the
   queue. A slice is a sixteenth of the memory, and the last object in it: what reads the rows of one
   takes four times that in each thread. #}
{% macro payload_slices() -%}
    {%- if not execute -%}{{ return(1) }}{%- endif -%}
    {%- set landed = source('landing', 'landed_objects').render() -%}
    {%- set memory = "parse_formatted_bytes(current_setting('memory_limit'))" -%}
    {%- set is_too_much -%}
select coalesce(max(held), 0) > {{ memory }} / 4
from (
    select sum(strlen(payload)) as held
    from {{ landed }}
    group by rowid // 2048
)
    {%- endset -%}
    {%- if not run_query(is_too_much).rows[0][0] -%}{{ return(1) }}{%- endif -%}
    {%- do run_query("
create or replace temporary table merge_slices as
with places as (
    select
        *,
        (sum(bytes) over (order by row_id) - bytes) // (" ~ memory ~ " // 16) as place
    from (
        select
            idem_key,
            observed_at,
            rowid as row_id,
            coalesce(strlen(payload), 0) as bytes
        from " ~ landed ~ "
    )
),

slices as (
    select
        idem_key,
        max_by(place, observed_at) filter (bytes > 0) as place
    from places
    group by idem_key
)

select
    idem_key,
    cast(dense_rank() over (order by coalesce(place, 0)) - 1 as integer) as slice
from slices
    ") -%}
    {{ return(run_query("select max(slice) + 1 from merge_slices").rows[0][0] | int) }}
{%- endmacro %}
