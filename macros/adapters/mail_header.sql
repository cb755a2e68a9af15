{# The first value of a header of a Gmail message's payload; names compare without case
   (RFC 5322, 1.2.2). NULL when the message has no such header. #}
{% macro mail_header(payload, name) -%}
    {{ return(adapter.dispatch('mail_header', 'landfall')(payload, name)) }}
{%- endmacro %}

{% macro duckdb__mail_header(payload, name) -%}
    json_extract_string(
        list_filter(
            json_extract({{ payload }}, '$.payload.headers[*]'),
            lambda header: lower(json_extract_string(header, '$.name')) = '{{ name | lower }}'
        )[1],
        '$.value'
    )
{%- endmacro %}

{% macro bigquery__mail_header(payload, name) -%}
    (
        select json_value(header, '$.value')
        from unnest(json_query_array({{ payload }}, '$.payload.headers')) as header
            with offset as position
        where lower(json_value(header, '$.name')) = '{{ name | lower }}'
        order by position
        limit 1
    )
{%- endmacro %}
