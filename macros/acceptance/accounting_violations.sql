{# What the source listed is landed, held already, gone, a dead letter, or was erased. #}
{% macro accounting_violations(period) -%}
    select
        correlation_id,
        event_id
    from ({{ run_events(period, 'assert_batch_upsert') }}) as events
    where
        event_type = 'ingestion.completed'
        and {{ json_integer('payload', '$.records_extracted') }}
        != {{ json_integer('payload', '$.records_landed') }}
        + {{ json_integer('payload', '$.already_held') }}
        + {{ json_integer('payload', '$.gone') }}
        + {{ json_integer('payload', '$.dead_lettered') }}
        -- earlier releases had none
        + coalesce({{ json_integer('payload', '$.erased') }}, 0)
{%- endmacro %}
