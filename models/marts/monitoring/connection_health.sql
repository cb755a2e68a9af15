-- grain: one row per connection that ran in monitoring_days, or is expected to
with connections as (
    select * from {{ ref('int_connections_judged') }}
),

open_dead_letters as (
    select
        source_system,
        connection_name,
        count(*) as letters
    from ({{ open_dead_letters() }}) as letters
    group by source_system, connection_name
),

final as (
    select
        connections.source_system,
        connections.connection_name,
        connections.state,
        case
            when connections.is_retired
                then 'nobody expects it to run (expected_intervals: never)'
            when connections.has_no_run
                then concat(
                    'no run in {{ var("monitoring_days") }} days, expected every ',
                    {{ duration_text('connections.expected_interval_seconds') }}
                )
            when connections.is_idle
                then concat(
                    'no run for ',
                    {{ duration_text('connections.idle_seconds') }},
                    ', expected every ',
                    {{ duration_text('connections.expected_interval_seconds') }},
                    case
                        when connections.consecutive_failures > 0
                            then '; the last run failed'
                        else ''
                    end
                )
            when connections.is_long_idle
                then concat(
                    'no run for ',
                    {{ duration_text('connections.idle_seconds') }},
                    '; tell how often to expect one, or never (expected_intervals)',
                    case
                        when connections.consecutive_failures > 0
                            then '; the last run failed'
                        else ''
                    end
                )
            when connections.is_quiet
                then concat(
                    'runs complete and bring no rows for ',
                    {{ duration_text('connections.quiet_seconds') }},
                    '; before it was ',
                    {{ duration_text('connections.longest_quiet_seconds') }},
                    ' at most'
                )
            when connections.consecutive_failures > 0
                then concat(
                    case
                        when connections.consecutive_failures = 1
                            then 'the last run failed: '
                        else concat(
                            'the last ',
                            cast(
                                connections.consecutive_failures
                                as {{ column_type('string') }}
                            ),
                            ' runs failed, the last with: '
                        )
                    end,
                    coalesce(
                        connections.last_error_message, 'it ended without an end row'
                    )
                )
            when connections.is_late
                then concat(
                    'the last success was ',
                    {{ duration_text('connections.age_seconds') }},
                    ' ago, expected every ',
                    {{ duration_text('connections.expected_interval_seconds') }},
                    case
                        when connections.last_state = 'running' then '; a run goes on'
                        else ''
                    end
                )
            when connections.last_success_at is null then 'its first run goes on'
            when connections.is_unusual
                then concat(
                    'the last run brought ',
                    cast(connections.last_rows as {{ column_type('string') }}),
                    ' rows, usually about ',
                    {{ whole_number_text('connections.median_rows') }}
                )
            when connections.expected_interval_seconds is null
                then 'the last run completed; how often to expect one is not known'
            else 'the last run completed'
        end as reason,
        connections.last_run_at,
        connections.last_state,
        connections.last_correlation_id,
        connections.last_success_at,
        connections.age_seconds,
        connections.expected_interval_seconds,
        connections.consecutive_failures,
        connections.last_rows,
        connections.median_rows,
        connections.mad_rows,
        connections.is_unusual,
        coalesce(open_dead_letters.letters, 0) as open_dead_letters,
        not connections.is_retired
        and (connections.has_no_run or connections.is_idle or connections.is_long_idle)
            as is_idle,
        not connections.is_retired and connections.is_quiet as is_quiet,
        not connections.is_retired and connections.is_late as is_late,
        connections.is_retired,
        connections.last_rows_at
    from connections
    left join open_dead_letters
        on
            connections.source_system = open_dead_letters.source_system
            and connections.connection_name = open_dead_letters.connection_name
)

select * from final
