# SPDX-License-Identifier: MIT
# The same small table of runs for every engine and runtime. Source after lib.sh and rest.sh; a server is
# there.
#     engine_table NAME ENGINE START_MS [UID]   NAME begins each line, ENGINE is in the `runtime.engine` of its
#                              runs; until a program's first line is out it takes at most START_MS; UID is what
#                              it runs as, inside
engine_table() {
    local name=$1 id
    new_sandbox '{"language":"python"}'
    run '{"command":"echo hello; echo problem >&2; id -u; pwd"}'
    same "$name: output" "hello ${4:-1000} /workspace problem" "$(field 'stdout+.stderr|gsub("\n"; " ")|rtrimstr(" ")')"
    contains "$name: the run says what ran it" "$2" "$(field runtime.engine)"
    run '{"command":"echo one >made.txt; mkdir sub; echo two >sub/two.txt"}'
    same "$name: files changed" 'created made.txt, created sub/two.txt' \
        "$(field 'files_changed|map(.change+" "+.path)|sort|join(", ")')"
    same "$name: and they are there" one "$(rest GET "/v1/sandboxes/$SB/files/made.txt")"
    put main.py 'import sys; print(open("made.txt").read().strip(), sys.argv[1:])'
    run '{"filename":"main.py","args":["a b"]}'
    same "$name: a file by name" "one ['a b']" "$(field stdout)"
    run '{"command":"cat","stdin":"fed"}'
    same "$name: standard input" fed "$(field stdout)"
    run '{"command":"exit 137"}'
    same "$name: an exit code" '137 null failed' "$(field '.|[.exit_code,.signal,.status]|map(tostring)|join(" ")')"
    run '{"command":"kill -SEGV $$"}'
    same "$name: a signal" 'null SIGSEGV' "$(field '.|[.exit_code,.signal]|map(tostring)|join(" ")')"
    run '{"command":["no-such-program"]}'
    same "$name: a program that is not there" '127 true' "$(field '.|[.exit_code,(.reason|contains("there is no program"))]|map(tostring)|join(" ")')"
    run '{"command":"touch /usr/mine /etc/mine /mine 2>/dev/null; ls -d /usr/mine /etc/mine /mine 2>/dev/null; echo end"}'
    same "$name: the root is read-only" end "$(field stdout)"
    run "{\"command\":[\"python3\",\"-c\",\"import socket\\nfor a in ('127.0.0.1', ${SILT_SERVER##*:}), ('192.0.2.1', 80):\\n try: print(socket.create_connection(a, 3))\\n except OSError as e: print('none')\"]}"
    same "$name: no network" 'none none' "$(field 'stdout|gsub("\n"; " ")|rtrimstr(" ")')"
    run "{\"command\":\"echo before; exec sleep 60\",\"limits\":{\"wall_ms\":$3}}"
    same "$name: time" 'timed_out true ["wall"] before' "$(field '.|[.status,.timed_out,(.limits_hit|tojson),(.stdout|rtrimstr("\n"))]|map(tostring)|join(" ")')"
    if rest GET /v1/info | jq -e .engine.limits_memory >/dev/null; then
        run '{"command":["python3","-c","x = bytearray(400 << 20)"],"limits":{"memory_bytes":67108864}}'
        same "$name: memory" 'true SIGKILL ["memory"]' "$(field '.|[.oom_killed,.signal,(.limits_hit|tojson)]|map(tostring)|join(" ")')"
    fi
    run '{"command":"i=0; while [ $i -lt 400 ]; do sleep 30 & i=$((i+1)); done; echo all","limits":{"pids":10,"wall_ms":20000}}'
    lacks "$name: processes" all "$(field stdout)"
    contains "$name: processes: limit" pids "$(field 'limits_hit|tojson')"

    run '{"command":"trap \"echo cleaned; exit 0\" TERM; echo ready; while :; do sleep 0.05; done","detach":true}'
    id=$(field id)
    check "$name: live output" wait_until 20 ready_in "$id"
    call POST "/v1/runs/$id/cancel"
    check "$name: a cancelled run ends" wait_until 20 status_is "$id" cancelled
    contains "$name: and could clean up" cleaned "$(rest GET "/v1/runs/$id/stdout")"
}
ready_in() { rest GET "/v1/runs/$1/stdout" | grep -q ready; }
status_is() { [ "$(rest GET "/v1/runs/$1" | json - status)" = "$2" ]; }
