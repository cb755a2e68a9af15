-- grain: one row per Gmail message of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

messages as (
    select *
    from raw_objects
    where source_system = 'gmail' and object_type = 'message'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as message_id,
        {{ json_text('payload', '$.threadId') }} as thread_id,
        {{ mail_header('payload', 'Subject') }} as subject,
        {{ mail_header('payload', 'From') }} as from_header,
        {{ mail_header('payload', 'To') }} as to_header,
        {{ mail_header('payload', 'Cc') }} as cc_header,
        {{ mail_header('payload', 'Date') }} as date_header,
        {{ timestamp_from_millis(json_text('payload', '$.internalDate')) }}
            as internal_date,
        case
            when payload is not null then {{ json_strings('payload', '$.labelIds') }}
        end as label_ids,
        {{ json_text('payload', '$.snippet') }} as snippet,
        {{ json_integer('payload', '$.sizeEstimate') }} as size_bytes,
        -- Any part, at any depth, that has a file name. Only the format full has parts.
        case
            when
                {{ json_container('payload', '$.payload.body') }} is not null
                or {{ json_container('payload', '$.payload.parts') }} is not null
                then {{ text_matches(
                    json_as_text(json_query('payload', '$.payload')),
                    '"filename"\\s*:\\s*"[^"]'
                ) }}
        end as has_attachments,
        deleted_at is not null as is_deleted,
        first_seen,
        last_seen
    from messages
)

select * from typed
