{# Whether this run's MERGE takes a row of landed_objects: of a complete load, and landed by its
   own connection, by itself, or by a run that is not open. What an open run of another
   connection has landed is for that run's own MERGE, and counted there; so no two of them work
   on the same keys. Who lands only, without a run, leaves it to whoever comes first. #}
{% macro is_to_merge() -%}
    {%- set connection = run_connection() -%}
    {{ is_complete() }}
    and (
        {% if connection -%}
        {{ is_of_connection(connection) }}
        or {% endif -%}
        correlation_id = {{ text_literal(correlation_id()) }}
        or correlation_id not in ({{ open_runs() | indent(12) }})
    )
{%- endmacro %}

{# Whether a row of a landing table is of a complete load. #}
{% macro is_complete() -%}
    _dlt_load_id in (
        select load_id from {{ source('landing', '_dlt_loads') }} where status = 0
    )
{%- endmacro %}

{# Runs without an end; as loaders/jobs/runs.py, those that began in the last 30 days. #}
{% macro open_runs() -%}
    select correlation_id
    from {{ source('telemetry', 'event_log') }}
    where created_at >= {{ days_ago(30) }}
    group by correlation_id
    having
        count(case when event_type = 'job.started' then 1 end) > 0
        and count(case when event_type in ('job.completed', 'job.failed') then 1 end) = 0
{%- endmacro %}

{# Predicate of the rows of a connection, [source_system, connection_name]; of a relation that has
   a name. #}
{% macro is_of_connection(connection, relation=none) -%}
    {%- set of = relation ~ '.' if relation else '' -%}
    (
        {{ of }}source_system = {{ text_literal(connection[0]) }}
        and {{ of }}connection_name = {{ text_literal(connection[1]) }}
    )
{%- endmacro %}
