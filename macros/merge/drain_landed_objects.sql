{# Takes from the queue only what raw_objects provably holds: safe whatever else runs. #}
{% macro drain_landed_objects() -%}
delete from {{ source('landing', 'landed_objects').render() }} as landed
where exists (
    select 1
    from {{ this }} as stored
    where
        stored.idem_key = landed.idem_key
        and {{ in_scope('stored') }}
        and stored.last_seen >= landed.observed_at
        and stored.first_seen <= landed.observed_at
        and (landed.object_created_at is null or stored.object_created_at is not null)
)
{%- endmacro %}
