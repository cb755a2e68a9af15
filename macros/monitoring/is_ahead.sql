{# Whether a time was written by a clock that was ahead: further in the future than the clocks of
   two hosts may differ (constants.grace_seconds). Such a run is listed, and is never the newest. #}
{% macro is_ahead(moment) -%}
    {{ seconds_between(timestamp_now(), moment) }} > {{ var('constants').grace_seconds }}
{%- endmacro %}
