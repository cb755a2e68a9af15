-- grain: one row per Stripe subscription of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

subscriptions as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'subscription'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as subscription_id,
        {{ stripe_reference('payload', '$.customer') }} as customer_id,
        {{ stripe_reference('payload', '$.latest_invoice') }} as latest_invoice_id,
        {{ stripe_reference('payload', '$.default_payment_method') }}
            as default_payment_method_id,
        {{ stripe_reference(
            'payload', '$.items.data[0].price', '$.items.data[0].plan', '$.plan'
        ) }} as price_id,
        {{ stripe_reference(
            'payload',
            '$.items.data[0].price.product',
            '$.items.data[0].plan.product',
            '$.plan.product',
        ) }} as product_id,
        {{ json_text('payload', '$.status') }} as status,
        coalesce(
            {{ json_text('payload', '$.collection_method') }},
            {{ json_text('payload', '$.billing') }}
        ) as collection_method,
        {{ json_text('payload', '$.cancellation_details.reason') }}
            as cancellation_reason,
        {{ json_text('payload', '$.description') }} as description,
        coalesce(
            {{ json_text('payload', '$.currency') }},
            {{ json_text('payload', '$.items.data[0].price.currency') }},
            {{ json_text('payload', '$.items.data[0].plan.currency') }},
            {{ json_text('payload', '$.plan.currency') }}
        ) as currency,
        -- The one beside the items is 1 where the first one's usage is metered.
        case
            when {{ json_container('payload', '$.items.data[0]') }} is null
                then {{ json_integer('payload', '$.quantity') }}
            else {{ json_integer('payload', '$.items.data[0].quantity') }}
        end as quantity,
        {{ json_container('payload', '$.items.data') }} as items,
        object_created_at as created_at,
        coalesce(
            {{ timestamp_from_seconds(
                json_text('payload', '$.items.data[0].current_period_start')
            ) }},
            {{ timestamp_from_seconds(json_text('payload', '$.current_period_start')) }}
        ) as current_period_start_at,
        coalesce(
            {{ timestamp_from_seconds(
                json_text('payload', '$.items.data[0].current_period_end')
            ) }},
            {{ timestamp_from_seconds(json_text('payload', '$.current_period_end')) }}
        ) as current_period_end_at,
        {{ timestamp_from_seconds(json_text('payload', '$.billing_cycle_anchor')) }}
            as billing_cycle_anchor_at,
        {{ timestamp_from_seconds(json_text('payload', '$.start_date')) }}
            as started_at,
        {{ timestamp_from_seconds(json_text('payload', '$.trial_start')) }}
            as trial_start_at,
        {{ timestamp_from_seconds(json_text('payload', '$.trial_end')) }}
            as trial_end_at,
        {{ timestamp_from_seconds(json_text('payload', '$.cancel_at')) }} as cancel_at,
        {{ timestamp_from_seconds(json_text('payload', '$.canceled_at')) }}
            as canceled_at,
        {{ timestamp_from_seconds(json_text('payload', '$.ended_at')) }} as ended_at,
        {{ json_boolean('payload', '$.cancel_at_period_end') }}
            as is_canceled_at_period_end,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from subscriptions
)

select * from typed
