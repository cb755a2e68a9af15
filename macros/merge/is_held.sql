{# True when a stored row tells all that a seen state could. Such a state was merged before and
   waits for its drain, which failed or is late: it must not overwrite what that MERGE did. #}
{% macro is_held(seen, stored) -%}
    (
        {{ stored }}.last_seen >= {{ seen }}.last_seen
        and {{ stored }}.first_seen <= {{ seen }}.first_seen
        and ({{ seen }}.object_created_at is null or {{ stored }}.object_created_at is not null)
    )
{%- endmacro %}
