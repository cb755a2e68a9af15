{{ config(
    materialized='incremental',
    incremental_strategy='merge',
    unique_key='idem_key',
    full_refresh=false,
    on_schema_change='ignore',
    post_hook=[
        "{{ drain_landed_objects() }}", "{{ drain_erased() }}", "{{ drain_cursors() }}"
    ],
) }}
{% set columns = object_columns() %}
-- grain: one row per idem_key; the MERGE itself is macros/merge/merge_objects.sql
with landed_objects as (
    {{ folded_states(is_to_merge()) | indent }}
),

objects as (
    select
        {%- for column in columns.key + columns.content + columns.landed %}
        {{ column }},
        {%- endfor %}
        object_created_at,
        first_seen,
        observed_at as last_seen,
        observed_at as changed_at,
        correlation_id as changed_by,
        content_observed_at,
        case when is_deleted then observed_at end as deleted_at
    from landed_objects
)

select * from objects
