-- grain: one row per Stripe customer of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

customers as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'customer'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as customer_id,
        {{ json_text('payload', '$.name') }} as customer_name,
        {{ json_text('payload', '$.email') }} as email,
        {{ json_text('payload', '$.phone') }} as phone,
        {{ json_text('payload', '$.address.country') }} as country,
        {{ json_text('payload', '$.description') }} as description,
        {{ json_text('payload', '$.currency') }} as currency,
        coalesce(
            {{ json_integer('payload', '$.balance') }},
            {{ json_integer('payload', '$.account_balance') }}
        ) as balance_minor,
        {{ json_text('payload', '$.tax_exempt') }} as tax_exempt,
        object_created_at as created_at,
        {{ json_boolean('payload', '$.delinquent') }} as is_delinquent,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from customers
),

converted as (
    select
        *,
        {{ minor_to_decimal('balance_minor', 'currency') }} as balance
    from typed
)

select * from converted
