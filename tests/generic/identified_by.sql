{# A row is an id that a connection has twice, or that is missing, or without an idem_key. That
   each idem_key is there once is tested of raw_objects, which a mart is a part of. #}
{% test identified_by(model, columns) %}
select
    connection_name,
    {{ columns | join(', ') }},
    count(*) as row_count
from {{ model }}
group by connection_name, {{ columns | join(', ') }}
having
    count(*) > 1
    or count(idem_key) < count(*)
    or connection_name is null
    {%- for column in columns %}
    or {{ column }} is null
    {%- endfor %}
{% endtest %}
