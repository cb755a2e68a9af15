-- grain: one row per idem_key in the landing queue, its states folded into one
{{ folded_states() }}
