-- grain: one row per Stripe invoice line of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

invoice_lines as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'invoice_line'
),

typed as (
    select
        idem_key,
        connection_name,
        -- external_id is <invoice id>:<line id>.
        {{ dbt.split_part('external_id', "':'", 1) }} as invoice_id,
        {{ dbt.split_part('external_id', "':'", 2) }} as invoice_line_id,
        {{ stripe_reference(
            'payload',
            '$.parent.subscription_item_details.subscription',
            '$.parent.invoice_item_details.subscription',
            '$.subscription',
        ) }} as subscription_id,
        {{ stripe_reference(
            'payload',
            '$.parent.subscription_item_details.subscription_item',
            '$.subscription_item',
        ) }} as subscription_item_id,
        {{ stripe_reference(
            'payload',
            '$.parent.invoice_item_details.invoice_item',
            '$.parent.subscription_item_details.invoice_item',
            '$.invoice_item',
        ) }} as invoice_item_id,
        {{ stripe_reference(
            'payload', '$.pricing.price_details.price', '$.price', '$.plan'
        ) }} as price_id,
        {{ stripe_reference(
            'payload',
            '$.pricing.price_details.product',
            '$.price.product',
            '$.plan.product',
        ) }} as product_id,
        coalesce(
            {{ json_text('payload', '$.parent.type') }},
            -- Before Basil. Which of its two items is the parent of a line with both?
            case
                when {{ json_text('payload', '$.type') }} = 'subscription'
                    then 'subscription_item_details'
                when
                    {{ json_text('payload', '$.type') }} = 'invoiceitem'
                    and {{ stripe_reference('payload', '$.subscription_item') }} is null
                    then 'invoice_item_details'
            end
        ) as parent_type,
        {{ json_text('payload', '$.description') }} as description,
        {{ json_integer('payload', '$.quantity') }} as quantity,
        {{ json_decimal('payload', '$.quantity_decimal') }} as quantity_decimal,
        {{ json_text('payload', '$.currency') }} as currency,
        {{ json_integer('payload', '$.amount') }} as amount_minor,
        {{ json_integer('payload', '$.subtotal') }} as subtotal_minor,
        coalesce(
            {{ json_decimal('payload', '$.pricing.unit_amount_decimal') }},
            {{ json_decimal('payload', '$.price.unit_amount_decimal') }},
            {{ json_decimal('payload', '$.price.unit_amount') }},
            {{ json_decimal('payload', '$.plan.amount_decimal') }},
            {{ json_decimal('payload', '$.plan.amount') }}
        ) as unit_amount_minor,
        object_created_at as created_at,
        {{ timestamp_from_seconds(json_text('payload', '$.period.start')) }}
            as period_start_at,
        {{ timestamp_from_seconds(json_text('payload', '$.period.end')) }}
            as period_end_at,
        coalesce(
            {{ json_boolean(
                'payload', '$.parent.subscription_item_details.proration'
            ) }},
            {{ json_boolean(
                'payload', '$.parent.invoice_item_details.proration'
            ) }},
            {{ json_boolean('payload', '$.proration') }}
        ) as is_proration,
        {{ json_boolean('payload', '$.discountable') }} as is_discountable,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from invoice_lines
),

converted as (
    select
        *,
        {{ minor_to_decimal('amount_minor', 'currency') }} as amount,
        {{ minor_to_decimal('subtotal_minor', 'currency') }} as subtotal,
        {{ minor_to_decimal('unit_amount_minor', 'currency') }} as unit_amount
    from typed
)

select * from converted
