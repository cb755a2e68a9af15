{# The queued states that a condition takes, of all complete loads without one, those of a key
   folded into one; nothing that was erased. A state that is left out takes no part in any way. #}
{% macro folded_states(taken=none) -%}
{%- set columns = object_columns() -%}
with landed_objects as (
    select * from {{ source('landing', 'landed_objects') }}
),

states as (
    select *
    from landed_objects
    where
        {{ taken or is_complete() }}
        -- what was erased is not stored again
        and not {{ is_erased('landed_objects.idem_key') }}
),

-- One sort serves every window: newest state first. A tombstone carries no payload, so
-- the newest content is the first payload that is not null.
folded as (
    select
        {%- for column in columns.key + columns.landed %}
        {{ column }},
        {%- endfor %}
        observed_at,
        is_deleted,
        correlation_id,
        first_value(payload ignore nulls) over newest_first as payload,
        min(object_created_at) over newest_first as object_created_at,
        min(observed_at) over newest_first as first_seen,
        first_value(case when not is_deleted then observed_at end ignore nulls)
            over newest_first as content_observed_at,
        row_number() over (
            partition by idem_key
            order by observed_at desc, is_deleted desc, payload_hash desc
        ) as state_rank
    from states
    window newest_first as (
        partition by idem_key
        order by observed_at desc, is_deleted desc, payload_hash desc
        rows between unbounded preceding and unbounded following
    )
),

newest as (
    select
        {%- for column in columns.key + columns.landed %}
        {{ column }},
        {%- endfor %}
        object_created_at,
        first_seen,
        observed_at,
        content_observed_at,
        is_deleted,
        correlation_id,
        {{ json_parse('payload') }} as payload
    from folded
    where state_rank = 1
)

select * from newest
{%- endmacro %}
