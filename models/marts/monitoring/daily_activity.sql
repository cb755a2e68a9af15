-- grain: one row per day, connection and object type (none: the runs themselves)
with job_runs as (
    select * from {{ ref('job_runs') }}
),

ingestion_runs as (
    select * from {{ ref('ingestion_runs') }}
),

by_type as (
    select
        {{ utc_date('started_at') }} as activity_date,
        source_system,
        connection_name,
        object_type,
        count(*) as runs,
        count(case when is_unread or state in ('failed', 'orphaned') then 1 end)
            as failures,
        {{ whole_sum('objects_landed') }} as objects_landed,
        cast(null as {{ column_type('integer') }}) as bytes,
        cast(null as {{ column_type('integer') }}) as api_units
    from ingestion_runs
    where object_type is not null
    group by activity_date, source_system, connection_name, object_type
),

by_run as (
    select
        {{ utc_date('started_at') }} as activity_date,
        source_system,
        connection_name,
        cast(null as {{ column_type('string') }}) as object_type,
        count(*) as runs,
        count(case when state in ('failed', 'orphaned') then 1 end) as failures,
        cast(null as {{ column_type('integer') }}) as objects_landed,
        {{ whole_sum('bytes') }} as bytes,
        {{ whole_sum('api_units') }} as api_units
    from job_runs
    where is_ingestion
    group by activity_date, source_system, connection_name
)

select * from by_type
union all
select * from by_run
