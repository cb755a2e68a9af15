{# Of each connection the head's package stays, with all of its cursors; what it supersedes goes,
   complete or not. A package that is being loaded is later than the head. Cursors of a release
   without links: of each stream the newest of a complete load stays. #}
{% macro drain_cursors() -%}
delete from {{ source('landing', 'cursors').render() }} as old
where exists (
    select 1
    from {{ source('landing', 'cursors') }} as newer
    inner join {{ source('landing', '_dlt_loads') }} as loads
        on newer._dlt_load_id = loads.load_id
    where
        loads.status = 0
        and newer.source_system = old.source_system
        and newer.connection_name = old.connection_name
        and newer.stream in (old.stream, '_package')
        and newer.observed_at > old.observed_at
)
{%- endmacro %}
