-- grain: one row per Stripe price of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

prices as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'price'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as price_id,
        {{ stripe_reference('payload', '$.product') }} as product_id,
        {{ json_text('payload', '$.nickname') }} as nickname,
        {{ json_text('payload', '$.lookup_key') }} as lookup_key,
        {{ json_text('payload', '$.type') }} as price_type,
        {{ json_text('payload', '$.billing_scheme') }} as billing_scheme,
        {{ json_text('payload', '$.recurring.interval') }} as recurring_interval,
        {{ json_integer('payload', '$.recurring.interval_count') }}
            as recurring_interval_count,
        {{ json_text('payload', '$.recurring.usage_type') }} as recurring_usage_type,
        {{ json_text('payload', '$.currency') }} as currency,
        coalesce(
            {{ json_decimal('payload', '$.unit_amount_decimal') }},
            {{ json_decimal('payload', '$.unit_amount') }}
        ) as unit_amount_minor,
        object_created_at as created_at,
        {{ json_boolean('payload', '$.active') }} as is_active,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from prices
),

converted as (
    select
        *,
        {{ minor_to_decimal('unit_amount_minor', 'currency') }} as unit_amount
    from typed
)

select * from converted
