{{ config(severity='warn') }}
-- A row is an object that could not be stored and that nobody has settled, told in
-- every run: `run.py retry` tries it again, `run.py dead-letters drop` gives it up.
select
    dead_letter_id,
    source_system,
    connection_name,
    object_type
from ({{ open_dead_letters() }}) as letters
