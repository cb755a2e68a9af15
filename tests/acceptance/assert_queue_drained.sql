{{ config(tags=['each_run']) }}
{% set this_run = text_literal(correlation_id()) %}
-- depends_on: {{ ref('raw_objects') }}
-- A row is a state that a completed run (or the one in flight that runs this test) has
-- landed and not merged. Loads that are not complete are left alone: they are retried.
with landed_objects as (
    select * from {{ source('landing', 'landed_objects') }}
),

complete_loads as (
    select load_id
    from {{ source('landing', '_dlt_loads') }}
    where status = 0
),

answerable_runs as (
    {% if is_full_check() %}select correlation_id
    from {{ source('telemetry', 'event_log') }}
    where event_type = 'job.completed'
    union distinct
    {% endif %}select {{ this_run }} as correlation_id
)

select
    landed_objects.correlation_id,
    landed_objects.idem_key
from landed_objects
inner join complete_loads on landed_objects._dlt_load_id = complete_loads.load_id
inner join answerable_runs
    on landed_objects.correlation_id = answerable_runs.correlation_id
where not exists (
    select 1
    from {{ ref('accepted_violations') }} as accepted
    where
        accepted.correlation_id = landed_objects.correlation_id
        and accepted.test = 'assert_queue_drained'
)
