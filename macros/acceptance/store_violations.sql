{# Where the log and the store contradict each other, each named by its run. Of each ended run:
   the rows that it inserted, with those of them that were erased since, are as many as its end
   says; at least as many when the end was written while the run might go on. Of each row: its
   inserted_by is in the log, and its key is made of its columns.

   Rows that runs lack are made up for by as many that a later resync of the connection has
   inserted. A run of a connection looks at that one, whose keys lie together. #}
{% macro store_violations(period) -%}
    {%- set test = 'assert_store_matches_log' -%}
    {%- set connection = run_connection() -%}
    {%- set of_connection = is_of_connection(connection) if connection else '1 = 1' -%}
    {%- set edge = days_ago(var('acceptance_days')) -%}
    {%- set in_log = '1 = 1' -%}
    {%- if period == 'recent' -%}
        {%- set in_log = 'created_at >= ' ~ days_ago(var('acceptance_days') + 1) -%}
    {%- endif -%}
    {%- set counts = var('constants').merge_actions | reject('equalto', 'inserted') | list -%}
    with ends as (
        select
            correlation_id,
            source_system,
            connection_name,
            created_at,
            payload,
            coalesce({{ json_text('payload', '$.error_type') }}, '') as error_type
        from ({{ run_events(period, test) }}) as events
        where event_type in ('job.completed', 'job.failed') and {{ of_connection }}
    ),

    ranked_ends as (
        select
            *,
            -- a real end supersedes an Orphaned one
            row_number() over (
                partition by correlation_id
                order by case when error_type = 'Orphaned' then 1 else 0 end, created_at
            ) as end_rank
        from ends
    ),

    counted_runs as (
        select
            correlation_id,
            source_system,
            connection_name,
            created_at as ended_at,
            error_type in ('Orphaned', 'Interrupted', 'TimedOut') as may_have_more,
            {{ json_integer('payload', '$.inserted') }}
            {%- if not connection %}
            + coalesce({{ json_integer('payload', '$.rescued.inserted') }}, 0)
            {%- endif %} as inserted,
            greatest(
                {%- for count in counts %}
                coalesce({{ json_integer('payload', '$.' ~ count) }}, 0){{ ',' if not loop.last }}
                {%- endfor %}
            ) as most_touched
        from ranked_ends
        -- earlier releases said nothing of rescued rows, and their rows nothing of the run
        where end_rank = 1 and {{ json_query('payload', '$.rescued') }} is not null
    ),

    objects as (
        select
            idem_key,
            source_system,
            connection_name,
            object_type,
            external_id,
            first_seen,
            last_seen,
            last_action,
            merged_by,
            inserted_by
        from {{ ref('raw_objects') }}
        where {{ is_in_keys_of(connection) if connection else '1 = 1' }}
    ),

    inserted_rows as (
        select
            inserted_by as correlation_id,
            count(*) as row_count
        from (
            select inserted_by from objects
            union all
            select inserted_by
            from {{ source('erasure', 'erasures') }}
            where {{ of_connection }}
        ) as parts
        group by inserted_by
    ),

    compared as (
        select
            counted_runs.*,
            counted_runs.inserted - coalesce(inserted_rows.row_count, 0) as lacking
        from counted_runs
        left join inserted_rows on counted_runs.correlation_id = inserted_rows.correlation_id
        where counted_runs.inserted is not null
    ),

    -- the run that does this check may be one
    resyncs as (
        select
            ingested.source_system,
            ingested.connection_name,
            ingested.created_at as read_at,
            coalesce(compared.inserted, inserted_rows.row_count, 0) as gained
        from {{ source('telemetry', 'event_log') }} as ingested
        left join compared on ingested.correlation_id = compared.correlation_id
        left join inserted_rows on ingested.correlation_id = inserted_rows.correlation_id
        where
            ingested.event_type = 'ingestion.completed'
            and {{ json_text('ingested.payload', '$.mode') }} in ('full', 'resync')
            and ingested.{{ in_log if period == 'recent' else 'created_at is not null' }}
            and not {{ is_ahead('ingested.created_at') }}
    ),

    made_up as (
        select
            lacking.source_system,
            lacking.connection_name,
            max(resyncs.read_at) as read_at,
            sum(resyncs.gained) as gained
        from (
            select
                source_system,
                connection_name,
                min(ended_at) as first_ended_at
            from compared
            where lacking > 0
            group by source_system, connection_name
        ) as lacking
        inner join resyncs
            on
                lacking.source_system = resyncs.source_system
                and lacking.connection_name = resyncs.connection_name
                and lacking.first_ended_at < resyncs.read_at
        group by lacking.source_system, lacking.connection_name
    ),

    healed as (
        select
            made_up.source_system,
            made_up.connection_name,
            made_up.read_at
        from made_up
        inner join compared
            on
                made_up.source_system = compared.source_system
                and made_up.connection_name = compared.connection_name
                and made_up.read_at > compared.ended_at
        where compared.lacking > 0
        group by made_up.source_system, made_up.connection_name, made_up.read_at, made_up.gained
        having sum(compared.lacking) <= made_up.gained
    ),

    violations as (
        select compared.correlation_id
        from compared
        left join healed
            on
                compared.source_system = healed.source_system
                and compared.connection_name = healed.connection_name
                and compared.ended_at < healed.read_at
        where
            (compared.lacking < 0 and not compared.may_have_more)
            or (compared.lacking > 0 and healed.read_at is null)
        union distinct
        select correlation_id
        from counted_runs
        where most_touched > (select coalesce(sum(row_count), 0) from inserted_rows)
        union distinct
        select inserted_by
        from objects
        where
            first_seen {{ '>=' if period == 'recent' else '<' }} {{ edge }}
            -- what began before the log does is not to be found in it
            and first_seen >= (
                select min(created_at)
                from {{ source('telemetry', 'event_log') }}
                where {{ in_log }}
            )
            and inserted_by not in (
                select correlation_id
                from {{ source('telemetry', 'event_log') }}
                where {{ in_log }}
            )
        union distinct
        select merged_by
        from objects
        where
            inserted_by is null
            and last_action = 'inserted'
            and merged_by in (select correlation_id from counted_runs)
        union distinct
        select merged_by
        from objects
        where
            last_seen {{ '>=' if period == 'recent' else '<' }} {{ edge }}
            and idem_key != concat(
                source_system, ':', connection_name, ':', object_type, ':', external_id
            )
    )

    select correlation_id
    from violations
    where not exists (
        select 1
        from {{ ref('accepted_violations') }} as accepted
        where
            accepted.correlation_id = violations.correlation_id
            and accepted.test = '{{ test }}'
    )
{%- endmacro %}

{# Predicate of the rows whose idem_key is of a connection; constants, by which BigQuery leaves
   out the blocks of other connections. #}
{% macro is_in_keys_of(connection) -%}
    {%- set literal = adapter.dispatch('raw_text_literal', 'landfall') -%}
    idem_key >= {{ literal(connection | join(':') ~ ':') }}
    and idem_key < {{ literal(connection | join(':') ~ ';') }}
{%- endmacro %}
