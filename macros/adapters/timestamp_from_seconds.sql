{# A count of seconds since 1970, as text, to a timestamp; NULL when it is none, or lies outside
   the years 1 to 9999. Digits only, as in timestamp_from_millis. #}
{% macro timestamp_from_seconds(text) -%}
    {{ return(adapter.dispatch('timestamp_from_seconds', 'landfall')(text)) }}
{%- endmacro %}

{% macro duckdb__timestamp_from_seconds(text) -%}
    case
        when {{ text_matches(text, '^-?[0-9]{1,12}$') }}
            and try_cast({{ text }} as bigint) between -62135596800 and 253402300799
            then to_timestamp(try_cast({{ text }} as bigint))
    end
{%- endmacro %}

{% macro bigquery__timestamp_from_seconds(text) -%}
    case
        when {{ text_matches(text, '^-?[0-9]{1,12}$') }}
            and safe_cast({{ text }} as int64) between -62135596800 and 253402300799
            then timestamp_seconds(safe_cast({{ text }} as int64))
    end
{%- endmacro %}
