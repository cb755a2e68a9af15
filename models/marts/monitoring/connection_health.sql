-- grain: one row per connection that ran in monitoring_days, or is expected to
with job_runs as (
    select * from {{ ref('job_runs') }}
),

configured as (
    {{ expected_intervals() }}
),

-- Runs that were to bring their connection up to date. One that gave way to another run
-- of its connection tells nothing of it, nor does one whose clock was ahead.
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
),

medians as (
    select
        *,
        {{ median_over('interval_seconds', 'source_system, connection_name') }}
            as median_interval_seconds,
        {{ median_over('compared_rows', 'source_system, connection_name') }}
            as median_rows
    from measured
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
),

open_dead_letters as (
    select
        source_system,
        connection_name,
        count(*) as letters
    from ({{ open_dead_letters() }}) as letters
    group by source_system, connection_name
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
),

final as (
    select
        stated.source_system,
        stated.connection_name,
        stated.state,
        case
            when stated.is_retired
                then 'nobody expects it to run (expected_intervals: never)'
            when stated.has_no_run
                then concat(
                    'no run in {{ var("monitoring_days") }} days, expected every ',
                    {{ duration_text('stated.expected_interval_seconds') }}
                )
            when stated.is_idle
                then concat(
                    'no run for ',
                    {{ duration_text('stated.idle_seconds') }},
                    ', expected every ',
                    {{ duration_text('stated.expected_interval_seconds') }},
                    case
                        when stated.consecutive_failures > 0
                            then '; the last run failed'
                        else ''
                    end
                )
            when stated.is_long_idle
                then concat(
                    'no run for ',
                    {{ duration_text('stated.idle_seconds') }},
                    '; tell how often to expect one, or never (expected_intervals)',
                    case
                        when stated.consecutive_failures > 0
                            then '; the last run failed'
                        else ''
                    end
                )
            when stated.is_quiet
                then concat(
                    'runs complete and bring no rows for ',
                    {{ duration_text('stated.quiet_seconds') }},
                    '; before it was ',
                    {{ duration_text('stated.longest_quiet_seconds') }},
                    ' at most'
                )
            when stated.consecutive_failures > 0
                then concat(
                    case
                        when stated.consecutive_failures = 1
                            then 'the last run failed: '
                        else concat(
                            'the last ',
                            cast(
                                stated.consecutive_failures
                                as {{ column_type('string') }}
                            ),
                            ' runs failed, the last with: '
                        )
                    end,
                    coalesce(stated.last_error_message, 'it ended without an end row')
                )
            when stated.is_late
                then concat(
                    'the last success was ',
                    {{ duration_text('stated.age_seconds') }},
                    ' ago, expected every ',
                    {{ duration_text('stated.expected_interval_seconds') }},
                    case
                        when stated.last_state = 'running' then '; a run goes on'
                        else ''
                    end
                )
            when stated.last_success_at is null then 'its first run goes on'
            when stated.is_unusual
                then concat(
                    'the last run brought ',
                    cast(stated.last_rows as {{ column_type('string') }}),
                    ' rows, usually about ',
                    {{ whole_number_text('stated.median_rows') }}
                )
            when stated.expected_interval_seconds is null
                then 'the last run completed; how often to expect one is not known'
            else 'the last run completed'
        end as reason,
        stated.last_run_at,
        stated.last_state,
        stated.last_correlation_id,
        stated.last_success_at,
        stated.age_seconds,
        stated.expected_interval_seconds,
        stated.consecutive_failures,
        stated.last_rows,
        stated.median_rows,
        stated.mad_rows,
        stated.is_unusual,
        coalesce(open_dead_letters.letters, 0) as open_dead_letters,
        not stated.is_retired
        and (stated.has_no_run or stated.is_idle or stated.is_long_idle) as is_idle,
        not stated.is_retired and stated.is_quiet as is_quiet,
        not stated.is_retired and stated.is_late as is_late,
        stated.is_retired,
        stated.last_rows_at
    from stated
    left join open_dead_letters
        on
            stated.source_system = open_dead_letters.source_system
            and stated.connection_name = open_dead_letters.connection_name
)

select * from final
