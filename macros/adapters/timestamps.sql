{% macro timestamp_now() -%}
    {{ return(adapter.dispatch('timestamp_now', 'landfall')()) }}
{%- endmacro %}

{% macro duckdb__timestamp_now() -%}
    now()
{%- endmacro %}

{% macro bigquery__timestamp_now() -%}
    current_timestamp()
{%- endmacro %}

{% macro days_ago(days) -%}
    {{ return(adapter.dispatch('days_ago', 'landfall')(days)) }}
{%- endmacro %}

{% macro duckdb__days_ago(days) -%}
    (now() - to_days({{ days }}))
{%- endmacro %}

{% macro bigquery__days_ago(days) -%}
    timestamp_sub(current_timestamp(), interval {{ days }} day)
{%- endmacro %}

{# A count of milliseconds since 1970, as text, to a timestamp; NULL when it is none, or lies
   outside the years 1 to 9999, which both warehouses have. Digits only: a cast also takes
   1e3, 0x10 or blanks, another warehouse's others, and the loader none of them. #}
{% macro timestamp_from_millis(text) -%}
    {{ return(adapter.dispatch('timestamp_from_millis', 'landfall')(text)) }}
{%- endmacro %}

{% macro duckdb__timestamp_from_millis(text) -%}
    case
        when {{ text_matches(text, '^-?[0-9]{1,15}$') }}
            and try_cast({{ text }} as bigint) between -62135596800000 and 253402300799999
            then epoch_ms(try_cast({{ text }} as bigint)) at time zone 'UTC'
    end
{%- endmacro %}

{% macro bigquery__timestamp_from_millis(text) -%}
    case
        when {{ text_matches(text, '^-?[0-9]{1,15}$') }}
            and safe_cast({{ text }} as int64) between -62135596800000 and 253402300799999
            then timestamp_millis(safe_cast({{ text }} as int64))
    end
{%- endmacro %}
