{# The one MERGE of a run. dbt's own has a single UPDATE clause: it would rewrite the payload
   of unchanged rows and lose it for deleted ones. Deciding and writing share this statement,
   so a concurrent MERGE cannot come between them. #}
{% macro merge_objects(target, source) -%}
    {%- set run = text_literal(correlation_id()) -%}
    {%- set action = merge_action(
        'seen.last_seen', '(seen.deleted_at is not null)', 'seen.payload_hash', 'stored'
    ) -%}
    {%- set history -%}
        first_seen = least(stored.first_seen, seen.first_seen),
        last_seen = greatest(stored.last_seen, seen.last_seen),
        object_created_at = coalesce(stored.object_created_at, seen.object_created_at),
        merged_by = {{ run }}
    {%- endset -%}
    {%- set state -%}
        payload_hash = seen.payload_hash,
        changed_at = seen.changed_at,
        deleted_at = seen.deleted_at,
        changed_by = seen.changed_by
    {%- endset -%}
    {%- set inserted = [
        'idem_key', 'source_system', 'connection_name', 'object_type', 'external_id', 'payload',
        'payload_hash', 'object_created_at', 'first_seen', 'last_seen', 'changed_at',
        'deleted_at', 'changed_by',
    ] -%}
merge into {{ target }} as stored
using {{ merge_source(source) }} as seen
on stored.idem_key = seen.idem_key
{{ merge_bound() }}
when matched and {{ action }} in ('updated', 'undeleted')
    then update set
        payload = seen.payload,
        {{ state }},
        {{ history }},
        last_action = case when stored.deleted_at is null then 'updated' else 'undeleted' end
-- deleted, and the queue also held newer content than the stored one
when matched and {{ action }} = 'deleted' and seen.content_observed_at > stored.last_seen
    then update set
        payload = seen.payload,
        {{ state }},
        {{ history }},
        last_action = 'deleted'
when matched and {{ action }} = 'deleted'
    then update set
        {{ state }},
        {{ history }},
        last_action = 'deleted'
when matched
    then update set
        {{ history }},
        last_action = {{ action }}
when not matched
    then insert ({{ inserted | join(', ') }}, merged_by, last_action)
    values (
        {%- for column in inserted %}seen.{{ column }}, {% endfor -%}
        {{ run }}, 'inserted'
    )
{%- endmacro %}
