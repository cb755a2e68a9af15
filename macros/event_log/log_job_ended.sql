{# on-run-end: job.completed or job.failed of a plain dbt command, told by its results. `dbt test`
   is no job: it is told what its failed tests name, and nothing is written. #}
{% macro log_job_ended(results) -%}
    {%- if is_own_job() -%}
        {%- set failures = [] -%}
        {%- set tests = {'passed': 0, 'warned': 0, 'failed': 0, 'skipped': 0} -%}
        {%- set merge = {} -%}
        {%- for result in results -%}
            {%- set status = result.status | string -%}
            {%- if result.node.name == 'raw_objects' -%}
                {%- for name in var('constants').merge_statistics -%}
                    {%- if name in result.adapter_response -%}
                        {%- do merge.update({name: result.adapter_response[name]}) -%}
                    {%- endif -%}
                {%- endfor -%}
            {%- endif -%}
            {%- if result.node.resource_type in ('test', 'unit_test') -%}
                {%- set outcome = var('constants').test_outcomes.get(status, 'failed') -%}
                {%- do tests.update({outcome: tests[outcome] + 1}) -%}
            {%- endif -%}
            {%- if status in var('constants').failed_statuses -%}
                {%- do failures.append(result) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- set duration = (
            modules.datetime.datetime.now(modules.pytz.utc) - run_started_at
        ).total_seconds() -%}
        {%- set telemetry = {
            'job_name': job_name(),
            'package_name': project_name,
            'duration_seconds': duration | round(3),
        } -%}
        {%- if failures -%}
            {%- set only_tests = failures | rejectattr('node.resource_type', 'in', ['test', 'unit_test']) | list | length == 0 -%}
            {%- do telemetry.update({
                'error_type': 'CheckFailed' if only_tests else 'TransformFailed',
                'step': 'check' if only_tests else 'merge',
                'retryable': false,
                'tests': tests,
            }) -%}
            {%- set message = failed_nodes_message(failures) -%}
            {%- do log(message, info=true) -%}
            {{ log_event('job.failed', json_with_merge_counts(telemetry), message) }}
        {%- else -%}
            {%- do telemetry.update({'tests': tests, 'merge': merge}) -%}
            {{ log_event('job.completed', json_with_merge_counts(telemetry)) }}
        {%- endif -%}
    {%- elif execute and flags.WHICH == 'test' -%}
        {%- set failures = results | selectattr('status', 'equalto', 'fail') | list -%}
        {%- if failures -%}{%- do log(failed_nodes_message(failures), info=true) -%}{%- endif -%}
    {%- endif -%}
{%- endmacro %}
