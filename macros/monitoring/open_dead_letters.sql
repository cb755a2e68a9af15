{# As loaders/warehouse/dead_letters.py has it: of each object the newest letter of a complete load,
   unless it was dropped or raw_objects holds a later state. #}
{% macro open_dead_letters() -%}
    select letters.*
    from (
        select
            *,
            row_number() over (
                partition by
                    source_system,
                    connection_name,
                    object_type,
                    coalesce(external_id, dead_letter_id)
                order by created_at desc, dead_letter_id asc
            ) as age
        from {{ source('landing', 'dead_letters') }}
        where _dlt_load_id in (
            select load_id from {{ source('landing', '_dlt_loads') }} where status = 0
        )
    ) as letters
    left join {{ ref('raw_objects') }} as stored
        on
            letters.source_system = stored.source_system
            and letters.connection_name = stored.connection_name
            and letters.object_type = stored.object_type
            and letters.external_id = stored.external_id
            and letters.created_at <= stored.last_seen
            and stored.deleted_at is null
    where
        letters.age = 1
        and letters.dropped_at is null
        and stored.external_id is null
{%- endmacro %}
