-- grain: one row per Stripe refund of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

refunds as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'refund'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as refund_id,
        {{ stripe_reference('payload', '$.charge') }} as charge_id,
        {{ stripe_reference('payload', '$.payment_intent') }} as payment_intent_id,
        {{ stripe_reference('payload', '$.balance_transaction') }}
            as balance_transaction_id,
        {{ stripe_reference('payload', '$.failure_balance_transaction') }}
            as failure_balance_transaction_id,
        {{ json_text('payload', '$.status') }} as status,
        {{ json_text('payload', '$.reason') }} as reason,
        {{ json_text('payload', '$.failure_reason') }} as failure_reason,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.amount') }} as amount_minor,
        object_created_at as created_at,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from refunds
),

converted as (
    select
        *,
        {{ minor_to_decimal('amount_minor', 'currency') }} as amount
    from typed
)

select * from converted
