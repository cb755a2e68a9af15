{{ config(severity='warn') }}
-- A row is an object that could not be stored and that nobody has settled, told in
-- every run: `run.py retry` tries it again, `run.py dead-letters drop` gives it up.
with dead_letters as (
    select * from {{ source('landing', 'dead_letters') }}
),

complete_loads as (
    select load_id
    from {{ source('landing', '_dlt_loads') }}
    where status = 0
),

raw_objects as (
    select * from {{ ref('raw_objects') }}
),

-- the newest of each object counts; one without an id is an object of its own
ranked as (
    select
        dead_letters.*,
        row_number() over (
            partition by
                dead_letters.source_system,
                dead_letters.connection_name,
                dead_letters.object_type,
                coalesce(dead_letters.external_id, dead_letters.dead_letter_id)
            order by dead_letters.created_at desc, dead_letters.dead_letter_id asc
        ) as age
    from dead_letters
    inner join complete_loads on dead_letters._dlt_load_id = complete_loads.load_id
)

select
    ranked.dead_letter_id,
    ranked.source_system,
    ranked.connection_name,
    ranked.object_type
from ranked
left join raw_objects
    on
        ranked.source_system = raw_objects.source_system
        and ranked.connection_name = raw_objects.connection_name
        and ranked.object_type = raw_objects.object_type
        and ranked.external_id = raw_objects.external_id
        and ranked.created_at <= raw_objects.last_seen
        and raw_objects.deleted_at is null
where
    ranked.age = 1
    and ranked.dropped_at is null
    and raw_objects.idem_key is null
