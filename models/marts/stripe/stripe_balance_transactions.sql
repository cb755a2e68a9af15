-- grain: one row per Stripe balance transaction of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

balance_transactions as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'balance_transaction'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as balance_transaction_id,
        {{ stripe_reference('payload', '$.source') }} as source_id,
        {{ json_text('payload', '$.type') }} as transaction_type,
        {{ json_text('payload', '$.reporting_category') }} as reporting_category,
        {{ json_text('payload', '$.status') }} as status,
        {{ json_text('payload', '$.description') }} as description,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.amount') }} as amount_minor,
        {{ json_integer('payload', '$.fee') }} as fee_minor,
        {{ json_integer('payload', '$.net') }} as net_minor,
        {{ json_float('payload', '$.exchange_rate') }} as exchange_rate,
        object_created_at as created_at,
        {{ timestamp_from_seconds(json_text('payload', '$.available_on')) }}
            as available_at,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from balance_transactions
),

converted as (
    select
        *,
        {{ minor_to_decimal('amount_minor', 'currency') }} as amount,
        {{ minor_to_decimal('fee_minor', 'currency') }} as fee,
        {{ minor_to_decimal('net_minor', 'currency') }} as net
    from typed
)

select * from converted
