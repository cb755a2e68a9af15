{# Of each stream the newest cursor of a complete load stays; what it supersedes goes. #}
{% macro drain_cursors() -%}
delete from {{ source('landing', 'cursors') }} as old
where exists (
    select 1
    from {{ source('landing', 'cursors') }} as newer
    inner join {{ source('landing', '_dlt_loads') }} as loads
        on newer._dlt_load_id = loads.load_id
    where
        loads.status = 0
        and newer.source_system = old.source_system
        and newer.connection_name = old.connection_name
        and newer.stream = old.stream
        and newer.observed_at > old.observed_at
)
{%- endmacro %}
