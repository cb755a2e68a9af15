{# idem_key belongs to objects: on telemetry it is NULL. #}
{% macro idem_key_violations(period) -%}
    select
        correlation_id,
        event_id
    from ({{ run_events(period, 'assert_idem_keys') }}) as events
    where idem_key is not null
{%- endmacro %}
