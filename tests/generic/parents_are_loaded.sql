{# A row refers to objects that are not there, in a connection that has objects of that kind:
   one that does not load a kind lacks nothing. A deleted parent is there. Warn, do not fail: a
   parent may have been deleted before the first run. Only what was created in the last
   acceptance_days is read, as the references lie in the payloads; the whole history with
   --vars '{acceptance_days: 100000}'. #}
{% test parents_are_loaded(model, parents) %}
with children as (
    select
        idem_key,
        connection_name,
        {{ parents | map(attribute='column') | join(', ') }}
    from {{ model }}
    where created_at >= {{ days_ago(var('acceptance_days')) }}
)

select
    children.idem_key
    {%- for parent in parents %},
    case
        when loaded_{{ loop.index }}.connection_name is not null
            and parents_{{ loop.index }}.connection_name is null
            then children.{{ parent.column }}
    end as missing_{{ parent.column }}
    {%- endfor %}
from children
{%- for parent in parents %}
left join (select distinct connection_name from {{ parent.to }}) as loaded_{{ loop.index }}
    on children.connection_name = loaded_{{ loop.index }}.connection_name
left join {{ parent.to }} as parents_{{ loop.index }}
    on children.connection_name = parents_{{ loop.index }}.connection_name
    and children.{{ parent.column }} = parents_{{ loop.index }}.{{ parent.field }}
{%- endfor %}
where
    {%- for parent in parents %}
    {{ 'or ' if not loop.first }}(
        children.{{ parent.column }} is not null
        and loaded_{{ loop.index }}.connection_name is not null
        and parents_{{ loop.index }}.connection_name is null
    )
    {%- endfor %}
{% endtest %}
