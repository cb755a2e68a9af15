{# Events of the runs that began in a period: `recent`, the last acceptance_days, or `older`.
   Runs excused for `test` in accepted_violations are left out. The recent period reads a day
   more, so that a run across its edge is seen whole, and nothing older: partitions prune. A run
   that tests what it has touched looks at its connection's since yesterday. #}
{% macro run_events(period, test) -%}
    {%- if period not in ('recent', 'older') -%}
        {{ exceptions.raise_compiler_error(
            "run_events: period must be 'recent' or 'older', got " ~ period
        ) }}
    {%- endif -%}
    {%- set days = var('acceptance_days') if is_full_check() else 1 -%}
    {%- set edge = days_ago(days) -%}
    {%- set bound = days_ago(days + 1) if period == 'recent' else none -%}
    {%- set connection = none if is_full_check() else run_connection() -%}
    select events.*
    from {{ source('telemetry', 'event_log') }} as events
    inner join (
        select
            correlation_id,
            min(created_at) as began_at
        from {{ source('telemetry', 'event_log') }}
        where {{ 'created_at >= ' ~ bound if bound else '1 = 1' }}
        {%- if connection %} and {{ is_of_connection(connection) }}{% endif %}
        group by correlation_id
    ) as runs on events.correlation_id = runs.correlation_id
    where
        runs.began_at {{ '>=' if period == 'recent' else '<' }} {{ edge }}
        {% if bound %}and events.created_at >= {{ bound }}{% endif %}
        and not exists (
            select 1
            from {{ ref('accepted_violations') }} as accepted
            where
                accepted.correlation_id = events.correlation_id
                and accepted.test = '{{ test }}'
        )
{%- endmacro %}
