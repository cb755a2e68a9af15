-- grain: one row per correlation_id with an event in the last monitoring_days
with event_log as (
    select * from {{ source('telemetry', 'event_log') }}
),

events as (
    select
        *,
        case
            when event_type = 'job.started' then 'start'
            when event_type like 'ingestion.%' then 'ingestion'
            when event_type = 'job.completed' then 'end'
            when {{ json_text('payload', '$.error_type') }} = 'Orphaned'
                then 'orphaned end'
            else 'end'
        end as kind
    from event_log
    where created_at >= {{ days_ago(var('monitoring_days')) }}
),

-- One pass and no join, however many events there are.
runs as (
    select
        correlation_id,
        {{ earliest('source_system', "kind = 'start'") }} as source_system,
        {{ earliest('connection_name', "kind = 'start'") }} as connection_name,
        {{ earliest('trace_id', "kind = 'start'") }} as trace_id,
        {{ earliest('payload', "kind = 'start'") }} as started,
        {{ earliest('payload', "kind = 'ingestion'") }} as ingestion,
        {{ earliest('event_type', "kind = 'end'") }} as end_type,
        {{ earliest('error_message', "kind = 'end'") }} as end_message,
        {{ earliest('payload', "kind = 'end'") }} as ended,
        {{ earliest('error_message', "kind = 'orphaned end'") }} as orphaned_message,
        min(case when kind = 'start' then created_at end) as started_at,
        min(case when kind = 'end' then created_at end) as real_end_at,
        min(case when kind = 'orphaned end' then created_at end) as orphaned_at
    from events
    group by correlation_id
)

select * from runs
