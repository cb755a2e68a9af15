{# A number of seconds for a person: `40 s`, `15 min`, `2 h` or `3 days`, rounded down. #}
{% macro duration_text(seconds) -%}
    case
        when {{ seconds }} < 120
            then concat({{ whole_number_text(seconds) }}, ' s')
        when {{ seconds }} < 7200
            then concat({{ whole_number_text(seconds ~ ' / 60') }}, ' min')
        when {{ seconds }} < 172800
            then concat({{ whole_number_text(seconds ~ ' / 3600') }}, ' h')
        else concat({{ whole_number_text(seconds ~ ' / 86400') }}, ' days')
    end
{%- endmacro %}

{% macro whole_number_text(number) -%}
    cast(cast(floor({{ number }}) as {{ column_type('integer') }}) as {{ column_type('string') }})
{%- endmacro %}
