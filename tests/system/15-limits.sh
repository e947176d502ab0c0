#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a program that takes too much is ended or contained, the run says which limit it hit, and the
# next run is not affected; more runs than places wait their turn or are refused.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server --max-runs 2 --max-queued 2 --sandbox-runs 2 --sandbox-queued 2
new_sandbox '{"language":"python"}'

run '{"command":"echo before; sleep 300","limits":{"wall_ms":2000}}'
same 'time: status' timed_out "$(field status)"
same 'time: flag' true "$(field timed_out)"
same 'time: limit' '["wall"]' "$(field 'limits_hit|tojson')"
same 'time: what it printed is kept' before "$(field stdout)"
check 'time: it ends soon' test "$(field 'wall_ms|floor')" -lt 7000
run '{"command":"trap \"\" TERM; while :; do sleep 1; done","limits":{"wall_ms":300}}'
same 'a program that ignores TERM is killed' SIGKILL "$(field signal)"
same 'and timed out all the same' timed_out "$(field status)"
run '{"command":"trap \"echo cleaned; exit 0\" TERM; while :; do sleep 0.05; done","limits":{"wall_ms":2000}}'
same 'TERM comes first, for cleaning up' cleaned "$(field stdout)"
run '{"command":"setsid sh -c \"trap \\\"\\\" TERM HUP; while :; do sleep 1; done\" & while :; do :; done","limits":{"cpu_ms":300}}'
same 'CPU time' '["cpu"]' "$(field 'limits_hit|tojson')"
check 'CPU time: it ends soon' test "$(field 'cpu_ms|floor')" -lt 3000

if rest GET /v1/info | jq -e .engine.limits_memory >/dev/null; then
    run '{"command":["python3","-c","x = bytearray(400 << 20)"],"limits":{"memory_bytes":67108864}}'
    same 'memory: killed' true "$(field oom_killed)"
    same 'memory: limit' '["memory"]' "$(field 'limits_hit|tojson')"
    same 'memory: diagnosis' out_of_memory "$(field diagnosis.code)"
    run '{"command":"head -c 200000000 /dev/zero >/tmp/x","limits":{"memory_bytes":67108864}}'
    check '/tmp counts as memory' test "$(field status)" = failed
fi
if rest GET /v1/info | jq -e .engine.limits_pids >/dev/null; then
    run '{"command":"for i in $(seq 60); do sleep 20 & done; wait","limits":{"pids":20,"wall_ms":5000}}'
    same 'processes: limit' true "$(field 'limits_hit|contains(["pids"])')"
fi
run '{"command":"head -c 300000000 /dev/zero >/tmp/x"}'
same '/tmp has a size' failed "$(field status)"

run '{"command":"head -c 100000 /dev/zero | tr \"\\0\" a; echo end >&2","limits":{"output_bytes":1000}}'
same 'output: what was written' 100000 "$(field stdout_bytes)"
same 'output: what is kept' 1000 "$(field 'stdout|length')"
same 'output: flag' 'true false' "$(field 'stdout_truncated|tostring') $(field 'stderr_truncated|tostring')"
same 'output: limit' '["output"]' "$(field 'limits_hit|tojson')"
same 'output: the program ends as it would' succeeded "$(field status)"
run '{"command":"ulimit -n"}'
same 'open files' 1024 "$(field stdout)"
run '{"command":"ls","limits":{"wall_ms":99999999999}}'
expect 'more than the most' 422 invalid_value
run '{"command":":(){ :|:& };:","limits":{"pids":50,"wall_ms":1000}}'
check 'a fork bomb ends' grep -qE 'timed_out|failed|succeeded' <<<"$(field status)"
run '{"command":"echo fine"}'
same 'and the next run is fine' fine "$(field stdout)"

# Places: two run, two wait, the fifth is refused
ids=()
for _ in 1 2 3 4; do
    run '{"command":"sleep 60","detach":true}'
    ids+=("$(field id)")
done
statuses() { rest GET /v1/runs | json - 'items|map(select(.status=="running" or .status=="queued").status)|sort|join(" ")'; }
two_and_two() { [ "$(statuses)" = 'queued queued running running' ]; }
check 'two run, two wait' wait_until 10 two_and_two
run '{"command":"echo x"}'
expect 'one too many' 429 busy
same 'may try again' true "$(field error.retryable)"
check 'after a while' test -n "$(header Retry-After)"
call POST "/v1/runs/${ids[3]}/cancel"
call GET "/v1/runs/${ids[3]}?wait_ms=10000"
same 'one that waits can be cancelled' cancelled "$(field status)"
run '{"command":"echo x","queue_ms":200}'
expect 'a place that does not come free in time' 429 busy
call GET "/v1/runs/${ids[2]}?wait_ms=1"
same 'the third still waits' queued "$(field status)"
rest POST "/v1/runs/${ids[0]}/cancel" >/dev/null
third_runs() { [ "$(rest GET "/v1/runs/${ids[2]}" | json - status)" = running ]; }
check 'it runs as soon as a place is free' wait_until 10 third_runs
for id in "${ids[@]}"; do rest POST "/v1/runs/$id/cancel" >/dev/null; done
none() { [ -z "$(statuses)" ]; }
check 'all end' wait_until 20 none
finish
