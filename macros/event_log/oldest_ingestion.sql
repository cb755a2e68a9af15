{# How fresh the stalest connection is: the earliest of the connections' last completed
   ingestions. One that has brought nothing for freshness_days counts as given up. #}
{% macro oldest_ingestion(event_log) -%}
    select min(last_completed_at)
    from (
        select
            source_system,
            connection_name,
            max(created_at) as last_completed_at
        from {{ event_log }}
        where
            event_type = 'ingestion.completed'
            and created_at >= {{ days_ago(var('freshness_days')) }}
        group by source_system, connection_name
    ) as connections
{%- endmacro %}
