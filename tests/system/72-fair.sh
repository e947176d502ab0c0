#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a sandbox that asks for more than the server can give waits for itself. Others find a place at
# once, are not refused when the greedy one's part of the queue is full, and take turns with it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server --max-runs 4 --max-queued 8
new_sandbox '{}'
greedy=$SB
sleepers=()
for _ in 1 2 3 4 5 6 7; do
    run '{"command":"sleep 300","limits":{"wall_ms":600000},"queue_ms":600000,"detach":true}'
    expect 'a run of the greedy sandbox' 202
    sleepers+=("$(field id)")
done
of() { rest GET "/v1/runs?sandbox=$greedy&status=$1" | json - 'items|length'; }
three_run() { [ "$(of running)" = 3 ] && [ "$(of queued)" = 4 ]; }
check 'three of its programs run, of four places' wait_until 60 three_run
run '{"command":"echo one too many","detach":true}'
expect 'its part of the queue is full' 429 busy
same 'it may try again' true "$(field error.retryable)"

new_sandbox '{}'
run '{"command":"echo neighbour"}'
same 'a neighbour finds a place' neighbour "$(field stdout)"
run '{"command":"echo again","queue_ms":60000}'
same 'and once more' again "$(field stdout)"

# One place comes free, and both want it more than once: the neighbour is not behind all of them.
run '{"command":"sleep 300","limits":{"wall_ms":600000},"detach":true}'
holder=$(field id)
held() { [ "$(rest GET "/v1/runs/$holder" | json - status)" = running ]; }
check 'the last place is taken' wait_until 60 held
run '{"command":"echo in turn","queue_ms":600000,"detach":true}'
turn=$(field id)
rest POST "/v1/runs/${sleepers[0]}/cancel" >/dev/null
rest POST "/v1/runs/${sleepers[1]}/cancel" >/dev/null
call GET "/v1/runs/$turn?wait_ms=60000"
same 'it has its turn before the rest of the greedy one' succeeded "$(field status)"
check 'some of which still wait' test "$(of queued)" -ge 1
for id in "${sleepers[@]}" "$holder"; do rest POST "/v1/runs/$id/cancel" >/dev/null; done
none() { [ "$(of running)$(of queued)" = 00 ]; }
check 'all end' wait_until 60 none
run '{"command":"echo fine"}'
same 'and all is as before' fine "$(field stdout)"
finish
