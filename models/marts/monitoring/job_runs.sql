-- grain: one row per run that began in the last monitoring_days
with runs as (
    select * from {{ ref('int_events_pivoted_to_runs') }}
),

typed as (
    select
        correlation_id,
        source_system,
        connection_name,
        trace_id,
        started_at,
        end_type,
        -- A real end supersedes an Orphaned one, whichever was written first.
        coalesce(real_end_at, orphaned_at) as ended_at,
        case when end_type is null then orphaned_message else end_message end
            as error_message,
        orphaned_at is not null and end_type is null as is_closed_as_orphaned,
        {{ json_text('started', '$.job_name') }} as job_name,
        {{ json_float('started', '$.timeout_seconds') }} as timeout_seconds,
        -- Verifications and erasures have a connection too, and bring nothing of it.
        -- What follows the source system tells: a connection may have any name. A
        -- job's name has it with as many characters (job_name_for in loaders/jobs).
        connection_name is not null
        and substr(
            {{ json_text('started', '$.job_name') }}, length(source_system) + 1, 8
        ) = '_ingest_'
            as is_ingestion,
        coalesce({{ json_text('started', '$.parameters.retry') }}, 'false') = 'true'
            as reads_dead_letters,
        -- As loaders/monitoring/alerts/job_end.py.
        coalesce(
            {%- for name in var('constants').backfill_parameters %}
            {{ json_text('started', '$.parameters.' ~ name) }}{{ ',' if not loop.last }}
            {%- endfor %}
        ) is not null as is_partial,
        {{ json_integer('ingestion', '$.records_extracted') }} as records_extracted,
        {{ json_integer('ingestion', '$.new_dead_letters') }} as dead_letters,
        {{ json_integer('ingestion', '$.bytes') }} as bytes,
        {{ json_integer('ingestion', '$.api_calls') }} as api_calls,
        {{ json_integer('ingestion', '$.api_units') }} as api_units,
        {{ json_integer('ingestion', '$.retries') }} as retries,
        {{ json_float('ingestion', '$.throttled_seconds') }} as throttled_seconds,
        {{ json_text('ingestion', '$.mode') }} as mode,  -- noqa: RF04
        {{ json_boolean('ingestion', '$.has_more') }} as has_more,
        -- BigQuery writes a NULL as the text null.
        nullif({{ json_as_text(json_query('ingestion', '$.objects')) }}, 'null')
            as objects_by_type,
        nullif({{ json_as_text(json_query('ingestion', '$.failed_objects')) }}, 'null')
            as failed_objects,
        {{ json_float('ended', '$.duration_seconds') }} as duration_seconds,
        {{ json_integer('ended', '$.inserted') }} as inserted,
        {{ json_integer('ended', '$.updated') }} as updated,
        {{ json_integer('ended', '$.unchanged') }} as unchanged,
        {{ json_integer('ended', '$.deleted') }} as deleted,
        {{ json_integer('ended', '$.undeleted') }} as undeleted,
        {{ json_integer('ended', '$.merge.bytes_processed') }} as bytes_processed,
        {{ json_integer('ended', '$.merge.bytes_billed') }} as bytes_billed,
        {{ json_integer('ended', '$.merge.slot_ms') }} as slot_ms,
        {{ json_integer('ended', '$.tests.passed') }} as tests_passed,
        {{ json_integer('ended', '$.tests.warned') }} as tests_warned,
        {{ json_integer('ended', '$.tests.failed') }} as tests_failed,
        {{ json_text('ended', '$.error_type') }} as real_error_type,
        {{ json_text('ended', '$.step') }} as step,
        {{ json_boolean('ended', '$.retryable') }} as real_retryable
    from runs
    -- Of a run that began earlier, what is in the period is not all.
    where started_at is not null
),

-- As loaders/jobs/runs.py: no end, and its timeout and the grace have passed.
stated as (
    select
        *,
        case
            when end_type = 'job.completed' then 'completed'
            when end_type = 'job.failed' then 'failed'
            when is_closed_as_orphaned then 'orphaned'
            when
                {{ seconds_between('started_at', timestamp_now()) }}
                > coalesce(timeout_seconds, 0) + {{ var('constants').grace_seconds }}
                then 'orphaned'
            else 'running'
        end as state,
        case when is_closed_as_orphaned then 'Orphaned' else real_error_type end
            as error_type,
        is_closed_as_orphaned or real_retryable as is_retryable,
        is_ingestion and not is_partial and not reads_dead_letters as is_sync,
        is_ingestion and reads_dead_letters as is_retry
    from typed
),

final as (
    select
        correlation_id,
        job_name,
        source_system,
        connection_name,
        started_at,
        ended_at,
        state,
        duration_seconds,
        timeout_seconds,
        is_ingestion,
        is_sync,
        is_retry,
        mode,
        has_more,
        inserted,
        updated,
        unchanged,
        deleted,
        undeleted,
        dead_letters,
        records_extracted,
        objects_by_type,
        failed_objects,
        bytes,
        api_calls,
        api_units,
        retries,
        throttled_seconds,
        bytes_processed,
        bytes_billed,
        slot_ms,
        tests_passed,
        tests_warned,
        tests_failed,
        error_type,
        error_message,
        step,
        is_retryable,
        trace_id
    from stated
)

select * from final
