{# Whether a time was written by a clock that was ahead: further in the future than the clocks of
   two hosts may differ (GRACE, loaders/jobs/runs.py). Such a run is listed, and is never the newest. #}
{% macro is_ahead(moment) -%}
    {{ seconds_between(timestamp_now(), moment) }} > 600
{%- endmacro %}
