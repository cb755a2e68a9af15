-- grain: one row per idem_key in the landing queue, with what a MERGE would do now
with seen as (
    select * from {{ ref('stg_landed_objects') }}
),

stored as (
    select * from {{ ref('raw_objects') }}
),

classified as (
    select
        seen.idem_key,
        seen.source_system,
        seen.connection_name,
        seen.object_type,
        seen.external_id,
        seen.observed_at,
        seen.correlation_id,
        case
            when stored.idem_key is null then 'inserted'
            else {{ merge_action(
                'seen.observed_at', 'seen.is_deleted', 'seen.payload_hash', 'stored'
            ) }}
        end as merge_action
    from seen
    left join stored on seen.idem_key = stored.idem_key
)

select * from classified
