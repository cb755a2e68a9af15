{# How fresh the stalest connection is: the earliest of the connections' last completed
   ingestions. One that has brought nothing for freshness_days counts as given up. As in
   connection_health, nobody expects anything of one that is declared `never`, nor of the
   sandbox, unless it has an interval; where there are no others, nothing is late. #}
{% macro oldest_ingestion(event_log) -%}
    select
        case
            when count(*) > 0 and count(case when is_expected then 1 end) = 0
                then {{ timestamp_now() }}
            else min(case
                when is_expected and last_completed_at >= {{ days_ago(var('freshness_days')) }}
                    then last_completed_at
            end)
        end
    from (
        select
            connections.last_completed_at,
            configured.seconds is not null
            or (
                configured.source_system is null
                and connections.connection_name != 'sandbox'
            ) as is_expected
        from (
            select
                source_system,
                connection_name,
                max(created_at) as last_completed_at
            from {{ event_log }}
            where event_type = 'ingestion.completed' and not {{ is_ahead('created_at') }}
            group by source_system, connection_name
        ) as connections
        left join ({{ expected_intervals() }}) as configured
            on
                connections.source_system = configured.source_system
                and connections.connection_name = configured.connection_name
    ) as expected
{%- endmacro %}
