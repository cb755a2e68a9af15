-- grain: one row per connection that ran in monitoring_days, or is expected to
with connections as (
    select * from {{ ref('int_syncs_aggregated_to_connections') }}
),

configured as (
    {{ expected_intervals() }}
),

expected as (
    select
        coalesce(connections.source_system, configured.source_system) as source_system,
        coalesce(connections.connection_name, configured.connection_name)
            as connection_name,
        connections.last_correlation_id,
        connections.last_state,
        connections.last_run_at,
        connections.last_success_at,
        coalesce(connections.consecutive_failures, 0) as consecutive_failures,
        connections.last_error_message,
        connections.last_rows,
        connections.median_rows,
        connections.mad_rows,
        connections.compared_runs,
        connections.first_rows_at,
        connections.last_rows_started_at,
        connections.last_rows_at,
        connections.longest_quiet_seconds,
        configured.source_system is not null
        and configured.seconds is null as is_retired,
        -- Five runs tell how often it runs; the sandbox is run for a trial.
        case
            when configured.source_system is not null then configured.seconds
            when connections.connection_name != 'sandbox' and connections.intervals >= 4
                then greatest(connections.median_interval_seconds, 900)
        end as expected_interval_seconds,
        {{ seconds_between('connections.last_success_at', timestamp_now()) }}
            as age_seconds,
        {{ seconds_between('connections.last_run_at', timestamp_now()) }}
            as idle_seconds,
        {{ seconds_between(
            'connections.last_rows_started_at', 'connections.last_completed_started_at'
        ) }} as quiet_seconds
    from connections
    full outer join configured
        on
            connections.source_system = configured.source_system
            and connections.connection_name = configured.connection_name
    where connections.source_system is not null or configured.seconds is not null
),

judged as (
    select
        *,
        coalesce(
            compared_runs >= 10
            and abs(last_rows - median_rows)
            > greatest(5 * 1.4826 * mad_rows, 0.5 * median_rows, 10),
            false
        ) as is_unusual,
        last_run_at is null as has_no_run,
        -- As its runs leave the period, too few are left to tell how often it ran.
        coalesce(
            last_state != 'running'
            and connection_name != 'sandbox'
            and idle_seconds > {{ var('monitoring_days') }} * 43200
            and expected_interval_seconds is null,
            false
        ) as is_long_idle,
        coalesce(
            last_state != 'running'
            and idle_seconds > 5 * expected_interval_seconds,
            false
        ) as is_idle,
        -- A week of runs that brought rows tells nights and weekends from an end.
        coalesce(
            connection_name != 'sandbox'
            and {{ seconds_between('first_rows_at', 'last_rows_started_at') }}
            >= 7 * 86400
            and quiet_seconds > 86400
            and quiet_seconds > 3 * longest_quiet_seconds,
            false
        ) as is_quiet,
        coalesce(age_seconds > 1.5 * expected_interval_seconds, false) as is_late
    from expected
),

-- The worst that holds.
stated as (
    select
        *,
        case
            when is_retired then 'ok'
            when has_no_run or is_idle or is_long_idle or is_quiet then 'silent'
            when consecutive_failures > 0 then 'failing'
            when is_late then 'late'
            else 'ok'
        end as state
    from judged
)

select * from stated
