-- grain: one row per Stripe payout of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

payouts as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'payout'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as payout_id,
        {{ stripe_reference('payload', '$.balance_transaction') }}
            as balance_transaction_id,
        {{ stripe_reference('payload', '$.failure_balance_transaction') }}
            as failure_balance_transaction_id,
        {{ stripe_reference('payload', '$.destination') }} as destination_id,
        {{ stripe_reference('payload', '$.original_payout') }} as original_payout_id,
        {{ stripe_reference('payload', '$.reversed_by') }} as reversed_by_payout_id,
        {{ json_text('payload', '$.status') }} as status,
        {{ json_text('payload', '$.type') }} as payout_type,
        {{ json_text('payload', '$.method') }} as delivery_method,
        {{ json_text('payload', '$.reconciliation_status') }} as reconciliation_status,
        {{ json_text('payload', '$.failure_code') }} as failure_code,
        {{ json_text('payload', '$.description') }} as description,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.amount') }} as amount_minor,
        object_created_at as created_at,
        {{ timestamp_from_seconds(json_text('payload', '$.arrival_date')) }}
            as arrival_at,
        {{ json_boolean('payload', '$.automatic') }} as is_automatic,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from payouts
),

converted as (
    select
        *,
        {{ minor_to_decimal('amount_minor', 'currency') }} as amount
    from typed
)

select * from converted
