{{ config(tags=['each_run']) }}
-- A row is a run in which what was listed is not what became of it.
{{ accounting_violations('recent') }}
