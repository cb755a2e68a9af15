{# The rows of the var expected_intervals: source_system, connection_name, seconds. NULL seconds
   stand for `never`: nobody expects the connection to run any more. #}
{% macro expected_intervals() -%}
    {%- set rows = [] -%}
    {%- for source_system, connections in (var('expected_intervals') or {}).items() -%}
        {%- if connections is not mapping -%}
            {{ exceptions.raise_compiler_error(
                "var expected_intervals: " ~ source_system ~ ": expected a mapping of connections"
                ~ " to intervals, such as {me: 1h}, got " ~ connections
            ) }}
        {%- endif -%}
        {%- for connection_name, interval in connections.items() -%}
            {%- do rows.append(
                'select ' ~ text_literal(source_system) ~ ' as source_system, '
                ~ text_literal(connection_name) ~ ' as connection_name, cast('
                ~ interval_seconds(source_system ~ '.' ~ connection_name, interval) ~ ' as '
                ~ column_type('integer') ~ ') as seconds'
            ) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- if not rows -%}
        {%- do rows.append(
            'select * from (select ' ~ text_literal(none) ~ ' as source_system, '
            ~ text_literal(none) ~ ' as connection_name, cast(null as '
            ~ column_type('integer') ~ ') as seconds) as nothing where false'
        ) -%}
    {%- endif -%}
    {{ return(rows | join(' union all ')) }}
{%- endmacro %}

{# Seconds of `90s`, `15m`, `1h` or `1d`; the SQL word null for `never`. #}
{% macro interval_seconds(of, interval) -%}
    {%- if interval == 'never' -%}{{ return('null') }}{%- endif -%}
    {%- set match = modules.re.fullmatch('([1-9][0-9]{0,8})([smhd])', interval | string) -%}
    {%- if not match -%}
        {{ exceptions.raise_compiler_error(
            "var expected_intervals: " ~ of ~ ": expected a whole number with s, m, h or d, such"
            ~ " as 1h, or never, got " ~ interval
        ) }}
    {%- endif -%}
    {%- set units = {'s': 1, 'm': 60, 'h': 3600, 'd': 86400} -%}
    {{ return((match.group(1) | int) * units[match.group(2)]) }}
{%- endmacro %}
