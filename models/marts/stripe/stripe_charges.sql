-- grain: one row per Stripe charge of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

charges as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'charge'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as charge_id,
        {{ stripe_reference('payload', '$.customer') }} as customer_id,
        {{ stripe_reference('payload', '$.payment_intent') }} as payment_intent_id,
        {{ stripe_reference('payload', '$.balance_transaction') }}
            as balance_transaction_id,
        {{ stripe_reference('payload', '$.failure_balance_transaction') }}
            as failure_balance_transaction_id,
        {{ stripe_reference('payload', '$.payment_method', '$.source') }}
            as payment_method_id,
        {{ json_text('payload', '$.payment_method_details.type') }}
            as payment_method_type,
        {{ json_text('payload', '$.status') }} as status,
        {{ json_text('payload', '$.failure_code') }} as failure_code,
        {{ json_text('payload', '$.description') }} as description,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.amount') }} as amount_minor,
        {{ json_integer('payload', '$.amount_captured') }} as amount_captured_minor,
        {{ json_integer('payload', '$.amount_refunded') }} as amount_refunded_minor,
        {{ json_integer('payload', '$.application_fee_amount') }}
            as application_fee_amount_minor,
        object_created_at as created_at,
        {{ json_boolean('payload', '$.paid') }} as is_paid,
        {{ json_boolean('payload', '$.captured') }} as is_captured,
        {{ json_boolean('payload', '$.refunded') }} as is_refunded,
        -- Before 2019-12 a charge named its dispute, and had no flag.
        coalesce(
            {{ json_boolean('payload', '$.disputed') }},
            case
                when {{ stripe_reference('payload', '$.dispute') }} is not null
                    then true
            end
        ) as is_disputed,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from charges
),

converted as (
    select
        *,
        {{ minor_to_decimal('amount_minor', 'currency') }} as amount,
        {{ minor_to_decimal('amount_captured_minor', 'currency') }} as amount_captured,
        {{ minor_to_decimal('amount_refunded_minor', 'currency') }} as amount_refunded,
        {{ minor_to_decimal('application_fee_amount_minor', 'currency') }}
            as application_fee_amount
    from typed
)

select * from converted
