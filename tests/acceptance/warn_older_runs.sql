{{ config(severity='warn') }}
-- A row is a violation of an acceptance test by a run older than acceptance_days: told
-- until somebody enters it in accepted_violations, but no reason to stop today's run.
{% set checks = {
    'assert_job_lifecycle': lifecycle_violations('older'),
    'assert_event_payloads': payload_violations('older'),
    'assert_no_per_object_events': event_count_violations('older'),
    'assert_batch_upsert': accounting_violations('older'),
    'assert_idem_keys': idem_key_violations('older'),
    'assert_correlation_ids': correlation_id_violations('older'),
    'assert_timestamps': timestamp_violations('older'),
    'assert_runs_end': unended_violations('older'),
    'assert_store_matches_log': store_violations('older'),
} %}
{% for test, violations in checks.items() %}
select
    '{{ test }}' as test,
    correlation_id
from ({{ violations }}) as violations
{{ 'union all' if not loop.last }}
{% endfor %}
