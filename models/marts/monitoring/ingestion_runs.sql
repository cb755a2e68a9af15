-- grain: one row per ingestion run and object type (none when nothing landed)
with job_runs as (
    select * from {{ ref('job_runs') }}
),

-- {"message":5} gives `message":5`, ["charge"] gives `charge"`; a type may be in both.
listed as (
    select
        *,
        objects_by_type is not null as has_told,
        concat(
            coalesce(nullif(objects_by_type, '{}'), '{"":0}'),
            coalesce(failed_objects, '')
        ) as object_types
    from job_runs
    where is_ingestion
),

entries as (
    select
        *,
        nullif({{ dbt.split_part('entry', "'\"'", 1) }}, '') as object_type,
        nullif({{ dbt.split_part('entry', "':'", 2) }}, '') as landed
    from listed
    {{ join_matches('object_types', '"([^"]*"(?::[0-9]+)?)', 'entry') }}
),

final as (
    select
        correlation_id,
        source_system,
        connection_name,
        object_type,
        started_at,
        ended_at,
        state,
        mode,
        -- a run whose events tell of no type tells of none either
        case
            when has_told
                then coalesce({{ whole_sum(
                    'cast(landed as ' ~ column_type('integer') ~ ')'
                ) }}, 0)
        end as objects_landed,
        count(case when landed is null then 1 end) > 0 as is_unread,
        error_message
    from entries
    group by
        correlation_id,
        source_system,
        connection_name,
        object_type,
        started_at,
        ended_at,
        state,
        mode,
        has_told,
        error_message
)

select * from final
