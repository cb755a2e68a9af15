{# What the MERGE reads, as a table expression: `relation`, the temporary one dbt made. #}
{% macro merge_source(relation) -%}
    {{ return(adapter.dispatch('merge_source', 'landfall')(relation)) }}
{%- endmacro %}

{# The queue's states are folded by a sort, and DuckDB keeps what it sorts in memory: 100,000
   mails do not fit in 512 MB. So the payload is left out of the sort, as an unused column is,
   and fetched afterwards from its row. Of states landed twice one row is taken. #}
{% macro duckdb__merge_source(relation) -%}
(
    with contents as (
        select
            idem_key,
            observed_at,
            max_by(rowid, payload_hash) as content_row
        from {{ source('landing', 'landed_objects') }}
        where
            not is_deleted
            and _dlt_load_id in (
                select load_id from {{ source('landing', '_dlt_loads') }} where status = 0
            )
        group by idem_key, observed_at
    ),

    seen as (
        select
            objects.* exclude (payload),
            contents.content_row
        from {{ relation }} as objects
        left join contents
            on objects.idem_key = contents.idem_key
            and objects.content_observed_at = contents.observed_at
    )

    select
        seen.*,
        {{ json_parse('landed.payload') }} as payload
    from {{ source('landing', 'landed_objects') }} as landed
    right join seen on landed.rowid = seen.content_row
)
{%- endmacro %}

{% macro bigquery__merge_source(relation) -%}
    {{ return(relation) }}
{%- endmacro %}
