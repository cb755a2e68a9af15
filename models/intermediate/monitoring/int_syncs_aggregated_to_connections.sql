-- grain: one row per connection that ran in monitoring_days
with syncs as (
    select * from {{ ref('int_syncs_measured') }}
),

medians as (
    select
        *,
        {{ median_over('interval_seconds', 'source_system, connection_name') }}
            as median_interval_seconds,
        {{ median_over('compared_rows', 'source_system, connection_name') }}
            as median_rows
    from syncs
),

deviations as (
    select
        *,
        {{ median_over(
            'abs(compared_rows - median_rows)', 'source_system, connection_name'
        ) }} as mad_rows
    from medians
),

connections as (
    select
        source_system,
        connection_name,
        max(case when run_age = 1 then correlation_id end) as last_correlation_id,
        max(case when run_age = 1 then state end) as last_state,
        max(started_at) as last_run_at,
        max(case when state = 'completed' then ended_at end) as last_success_at,
        count(case
            when
                outcome = 'failed'
                and (
                    last_completed_started_at is null
                    or started_at > last_completed_started_at
                )
                then 1
        end) as consecutive_failures,
        max(case when outcome = 'failed' and outcome_age = 1 then error_message end)
            as last_error_message,
        count(interval_seconds) as intervals,
        max(median_interval_seconds) as median_interval_seconds,
        max(case when state = 'completed' and outcome_age = 1 then changed_rows end)
            as last_rows,
        count(compared_rows) as compared_runs,
        max(median_rows) as median_rows,
        max(mad_rows) as mad_rows,
        max(last_completed_started_at) as last_completed_started_at,
        min(case when state = 'completed' and changed_rows > 0 then started_at end)
            as first_rows_at,
        max(case when state = 'completed' and changed_rows > 0 then started_at end)
            as last_rows_started_at,
        max(case when state = 'completed' and changed_rows > 0 then ended_at end)
            as last_rows_at,
        max(quiet_seconds) as longest_quiet_seconds
    from deviations
    group by source_system, connection_name
)

select * from connections
