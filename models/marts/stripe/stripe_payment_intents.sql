-- grain: one row per Stripe payment intent of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

payment_intents as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'payment_intent'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as payment_intent_id,
        {{ stripe_reference('payload', '$.customer') }} as customer_id,
        {{ stripe_reference('payload', '$.latest_charge', '$.charges.data[0]') }}
            as latest_charge_id,
        {{ stripe_reference('payload', '$.payment_method', '$.source') }}
            as payment_method_id,
        {{ json_text('payload', '$.status') }} as status,
        {{ json_text('payload', '$.cancellation_reason') }} as cancellation_reason,
        {{ json_text('payload', '$.capture_method') }} as capture_method,
        {{ json_text('payload', '$.description') }} as description,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.amount') }} as amount_minor,
        {{ json_integer('payload', '$.amount_capturable') }} as amount_capturable_minor,
        {{ json_integer('payload', '$.amount_received') }} as amount_received_minor,
        {{ json_integer('payload', '$.application_fee_amount') }}
            as application_fee_amount_minor,
        object_created_at as created_at,
        {{ timestamp_from_seconds(json_text('payload', '$.canceled_at')) }}
            as canceled_at,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from payment_intents
),

converted as (
    select
        *,
        {{ minor_to_decimal('amount_minor', 'currency') }} as amount,
        {{ minor_to_decimal('amount_capturable_minor', 'currency') }}
            as amount_capturable,
        {{ minor_to_decimal('amount_received_minor', 'currency') }} as amount_received,
        {{ minor_to_decimal('application_fee_amount_minor', 'currency') }}
            as application_fee_amount
    from typed
)

select * from converted
