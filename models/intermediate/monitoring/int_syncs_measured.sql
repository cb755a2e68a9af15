-- grain: one row per run that was to bring its connection up to date
with job_runs as (
    select * from {{ ref('job_runs') }}
),

-- One that gave way to another run of its connection tells nothing of it, nor does one
-- whose clock was ahead.
syncs as (
    select
        source_system,
        connection_name,
        correlation_id,
        started_at,
        ended_at,
        state,
        error_message,
        has_more,
        case when state = 'orphaned' then 'failed' else state end as outcome,
        coalesce(inserted, 0) + coalesce(updated, 0) as changed_rows
    from job_runs
    where
        is_sync
        and coalesce(error_type, '') not in ('WarehouseBusy', 'LeaseLost')
        and not {{ is_ahead('greatest(started_at, coalesce(ended_at, started_at))') }}
),

-- outcome_age: 1 is the newest of its outcome.
ordered as (
    select
        *,
        row_number() over (
            partition by source_system, connection_name
            order by started_at desc, correlation_id desc
        ) as run_age,
        row_number() over (
            partition by source_system, connection_name, outcome
            order by started_at desc, correlation_id desc
        ) as outcome_age,
        lag(started_at) over (
            partition by source_system, connection_name, outcome
            order by started_at, correlation_id
        ) as previous_started_at,
        lag(has_more) over (
            partition by source_system, connection_name, outcome
            order by started_at, correlation_id
        ) as previous_has_more,
        lag(started_at) over (
            partition by source_system, connection_name, outcome, changed_rows > 0
            order by started_at, correlation_id
        ) as previous_of_kind_started_at,
        max(case when state = 'completed' then started_at end) over (
            partition by source_system, connection_name
        ) as last_completed_started_at
    from syncs
),

-- A run that goes on where a bounded one stopped follows no schedule.
measured as (
    select
        *,
        case
            when
                state = 'completed'
                and outcome_age <= 20
                and not coalesce(previous_has_more, false)
                then {{ seconds_between('previous_started_at', 'started_at') }}
        end as interval_seconds,
        case
            when state = 'completed' and changed_rows > 0
                then {{ seconds_between('previous_of_kind_started_at', 'started_at') }}
        end as quiet_seconds,
        -- What the newest one is compared with.
        case
            when state = 'completed' and outcome_age between 2 and 21 then changed_rows
        end as compared_rows
    from ordered
)

select * from measured
