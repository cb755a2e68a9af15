-- grain: one row per Stripe dispute of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

disputes as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'dispute'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as dispute_id,
        {{ stripe_reference('payload', '$.charge') }} as charge_id,
        {{ stripe_reference('payload', '$.payment_intent') }} as payment_intent_id,
        {{ json_text('payload', '$.status') }} as status,
        {{ json_text('payload', '$.reason') }} as reason,
        coalesce(
            {{ json_text(
                'payload', '$.payment_method_details.card.network_reason_code'
            ) }},
            {{ json_text('payload', '$.network_reason_code') }}
        ) as network_reason_code,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.amount') }} as amount_minor,
        {{ json_container('payload', '$.balance_transactions') }}
            as balance_transactions,
        object_created_at as created_at,
        -- 0 when the bank takes no evidence.
        {{ timestamp_from_seconds(
            "nullif(" ~ json_text('payload', '$.evidence_details.due_by') ~ ", '0')"
        ) }} as evidence_due_at,
        {{ json_integer('payload', '$.evidence_details.submission_count') }}
            as evidence_submission_count,
        {{ json_boolean('payload', '$.evidence_details.has_evidence') }}
            as has_evidence,
        {{ json_boolean('payload', '$.evidence_details.past_due') }}
            as is_evidence_past_due,
        {{ json_boolean('payload', '$.is_charge_refundable') }} as is_charge_refundable,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from disputes
),

converted as (
    select
        *,
        {{ minor_to_decimal('amount_minor', 'currency') }} as amount
    from typed
)

select * from converted
