-- grain: one row per Stripe product of each connection
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

products as (
    select *
    from raw_objects
    where source_system = 'stripe' and object_type = 'product'
),

typed as (
    select
        idem_key,
        connection_name,
        external_id as product_id,
        {{ stripe_reference('payload', '$.default_price') }} as default_price_id,
        {{ json_text('payload', '$.name') }} as product_name,
        {{ json_text('payload', '$.description') }} as description,
        {{ json_text('payload', '$.type') }} as product_type,
        {{ json_text('payload', '$.unit_label') }} as unit_label,
        object_created_at as created_at,
        {{ timestamp_from_seconds(json_text('payload', '$.updated')) }} as updated_at,
        {{ json_boolean('payload', '$.active') }} as is_active,
        {{ json_boolean('payload', '$.livemode') }} as is_livemode,
        {{ json_container('payload', '$.metadata') }} as metadata,
        deleted_at is not null as is_deleted,
        deleted_at,
        first_seen,
        last_seen
    from products
)

select * from typed
