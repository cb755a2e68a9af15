-- grain: one row per Stripe invoice of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

invoices as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'invoice'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as invoice_id,
        {{ stripe_reference('payload', '$.customer') }} as customer_id,
        {{ stripe_reference(
            'payload',
            '$.parent.subscription_details.subscription',
            '$.subscription',
        ) }} as subscription_id,
        {{ stripe_reference('payload', '$.parent.quote_details.quote', '$.quote') }}
            as quote_id,
        {{ json_text('payload', '$.number') }} as number,
        {{ json_text('payload', '$.status') }} as status,
        {{ json_text('payload', '$.billing_reason') }} as billing_reason,
        coalesce(
            {{ json_text('payload', '$.collection_method') }},
            {{ json_text('payload', '$.billing') }}
        ) as collection_method,
        {{ json_integer('payload', '$.attempt_count') }} as attempt_count,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.subtotal') }} as subtotal_minor,
        {{ json_integer('payload', '$.total') }} as total_minor,
        {{ json_integer('payload', '$.total_excluding_tax') }}
            as total_excluding_tax_minor,
        {{ json_integer('payload', '$.amount_due') }} as amount_due_minor,
        {{ json_integer('payload', '$.amount_paid') }} as amount_paid_minor,
        {{ json_integer('payload', '$.amount_remaining') }} as amount_remaining_minor,
        {{ json_integer('payload', '$.starting_balance') }} as starting_balance_minor,
        {{ json_integer('payload', '$.ending_balance') }} as ending_balance_minor,
        object_created_at as created_at,
        {{ timestamp_from_seconds(json_text('payload', '$.period_start')) }}
            as period_start_at,
        {{ timestamp_from_seconds(json_text('payload', '$.period_end')) }}
            as period_end_at,
        {{ timestamp_from_seconds(json_text('payload', '$.due_date')) }} as due_at,
        {{ timestamp_from_seconds(json_text('payload', '$.effective_at')) }}
            as effective_at,
        coalesce(
            {{ timestamp_from_seconds(
                json_text('payload', '$.status_transitions.finalized_at')
            ) }},
            {{ timestamp_from_seconds(json_text('payload', '$.finalized_at')) }}
        ) as finalized_at,
        {{ timestamp_from_seconds(
            json_text('payload', '$.status_transitions.paid_at')
        ) }} as paid_at,
        {{ timestamp_from_seconds(
            json_text('payload', '$.status_transitions.voided_at')
        ) }} as voided_at,
        {{ timestamp_from_seconds(
            json_text('payload', '$.status_transitions.marked_uncollectible_at')
        ) }} as marked_uncollectible_at,
        {{ timestamp_from_seconds(json_text('payload', '$.next_payment_attempt')) }}
            as next_payment_attempt_at,
        {{ json_boolean('payload', '$.attempted') }} as is_attempted,
        {{ json_boolean('payload', '$.auto_advance') }} as is_auto_advanced,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from invoices
),

converted as (
    select
        *,
        {{ minor_to_decimal('subtotal_minor', 'currency') }} as subtotal,
        {{ minor_to_decimal('total_minor', 'currency') }} as total,
        {{ minor_to_decimal('total_excluding_tax_minor', 'currency') }}
            as total_excluding_tax,
        {{ minor_to_decimal('amount_due_minor', 'currency') }} as amount_due,
        {{ minor_to_decimal('amount_paid_minor', 'currency') }} as amount_paid,
        {{ minor_to_decimal('amount_remaining_minor', 'currency') }}
            as amount_remaining,
        {{ minor_to_decimal('starting_balance_minor', 'currency') }}
            as starting_balance,
        {{ minor_to_decimal('ending_balance_minor', 'currency') }} as ending_balance
    from typed
)

select * from converted
