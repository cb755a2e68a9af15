{# What a seen state does to a stored row. The order of states is (observed_at, is_deleted,
   payload_hash); a state that is not newer than the stored one is stale. #}
{% macro merge_action(seen_at, seen_is_deleted, seen_hash, stored) -%}
    case
        when {{ seen_at }} < {{ stored }}.last_seen then 'stale'
        when {{ seen_at }} = {{ stored }}.last_seen
            and {{ stored }}.deleted_at is not null then 'stale'
        when {{ seen_at }} = {{ stored }}.last_seen and not {{ seen_is_deleted }}
            and {{ seen_hash }} <= {{ stored }}.payload_hash then 'stale'
        when {{ seen_is_deleted }} and {{ stored }}.deleted_at is null then 'deleted'
        when {{ seen_is_deleted }} then 'unchanged'
        when {{ stored }}.deleted_at is not null then 'undeleted'
        when {{ seen_hash }} != {{ stored }}.payload_hash then 'updated'
        else 'unchanged'
    end
{%- endmacro %}
