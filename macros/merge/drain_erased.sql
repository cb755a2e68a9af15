{# Takes from the queue what was erased: the merge leaves it out. And from the dead letters, if
   anything was ever erased: they too may come late, with a package of another machine. #}
{% macro drain_erased() -%}
    {%- set erasures = source('erasure', 'erasures') -%}
    {%- set letters = source('landing', 'dead_letters').render() -%}
    {%- if execute and run_query('select 1 as one from ' ~ erasures ~ ' limit 1').rows -%}
        {%- call statement() -%}
delete from {{ letters }}
where
    external_id is not null
    and {{ is_erased(
        "concat(source_system, ':', connection_name, ':', object_type, ':', external_id)"
    ) }}
        {%- endcall -%}
    {%- endif -%}
delete from {{ source('landing', 'landed_objects').render() }}
where {{ is_erased('idem_key') }}
{%- endmacro %}
