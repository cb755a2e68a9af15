{# The months that this MERGE may touch, as counts of months since year 0: of each queued
   object the month it is stored in, else the month it would be stored in. BigQuery prunes a
   table's partitions by constants alone, and only a query can find them: read are the keys
   and times of the stored rows, never a payload; where the run knows them, nothing. #}
{% macro merge_months(target) -%}
    {%- if merge_scope() -%}{{ return(merge_scope().months) }}{%- endif -%}
    {%- set months -%}
        with queued as (
            select
                idem_key,
                min(object_created_at) as object_created_at
            from {{ source('landing', 'landed_objects') }}
            where {{ is_to_merge() | indent(8) }}
            group by idem_key
        ),

        objects as (
            select coalesce(stored.object_created_at, queued.object_created_at) as created_at
            from queued
            left join {{ target }} as stored on queued.idem_key = stored.idem_key
        )

        select distinct
            extract(year from created_at) * 12 + extract(month from created_at) - 1 as month
        from objects
        where created_at is not null
        order by month
        -- a job may modify 4,000 partitions; what is left out waits for the next run
        limit 3900
    {%- endset -%}
    {{ return(run_query(months).columns[0].values() | map('int') | list) }}
{%- endmacro %}

{# A predicate of constants: the time is unknown, or lies in one of the months. Neighbours
   make one range, so that a predicate of 20 years is short. #}
{% macro in_months(time, months) -%}
    {%- set ranges = [] -%}
    {%- for month in months -%}
        {%- if ranges and ranges[-1][1] == month -%}
            {%- do ranges[-1].append(month + 1) -%}
            {%- do ranges[-1].pop(1) -%}
        {%- else -%}
            {%- do ranges.append([month, month + 1]) -%}
        {%- endif -%}
    {%- endfor -%}
    (
        {{ time }} is null
        {%- for first, end in ranges %}
        or ({{ time }} >= {{ first_of_month(first) }}
            {%- if end < 120000 %} and {{ time }} < {{ first_of_month(end) }}{% endif %})
        {%- endfor %}
    )
{%- endmacro %}

{% macro first_of_month(month) -%}
    {{ return("timestamp '%04d-%02d-01 00:00:00+00'" % (month // 12, month % 12 + 1)) }}
{%- endmacro %}
