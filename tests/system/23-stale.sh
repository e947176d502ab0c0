#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: what runs is what was saved last. Python takes a module's bytecode for fresh when size and whole
# second agree, so pairs of edits of equal size within one second, each followed by a run, are the hard
# case: 40 pairs, without and with a watcher, and not one may run the old code.
. "$(dirname "$0")/lib.sh"

start_server
new_project quick
mkdir -p lib
touch lib/__init__.py
printf 'from lib import value\nprint(value.V)\n' >main.py
printf 'V = "start"\n' >lib/value.py

# pairs COUNT TAG: how many of 2*COUNT runs were stale, in $stale.
pairs() {
    local i half want
    stale=0
    for ((i = 0; i < $1; i++)); do
        for half in a b; do
            want=$(printf '%s%s%02d' "$2" "$half" "$i")
            printf 'V = "%s"\n' "$want" >lib/value.py
            out=$(silt run main.py 2>>"$TMP/stale.err")
            [ "$out" = "$want" ] || { stale=$((stale + 1)); say "expected $want, got $out"; }
        done
    done
}

pairs 40 x
same "40 pairs of same-size edits within a second: none is stale" 0 "$stale"

# The bytecode cache is kept between runs, else this scenario would prove nothing.
try silt run -- sh -c 'find /cache/pyc -name "value.*.pyc" | wc -l'
same "bytecode is kept" 1 "$out"

silt watch -d >/dev/null
pairs 15 w
same "15 pairs with a watcher: none is stale" 0 "$stale"

# Replaced by a file with an older time stamp, as cp -p, tar and git stash do.
printf 'V = "older"\n' >"$TMP/older.py" && touch -d '2001-01-01' "$TMP/older.py"
cp -p "$TMP/older.py" lib/value.py
same "a file that comes with an old time stamp counts" older "$(silt run main.py)"
printf 'V = "swap1"\n' >lib/one.py
printf 'V = "swap2"\n' >lib/two.py
same "before a swap" older "$(silt run main.py)"
mv lib/one.py lib/value.py
same "one file renamed over it" swap1 "$(silt run main.py)"
mv lib/two.py lib/value.py
same "another of equal size at once" swap2 "$(silt run main.py)"
silt stop >/dev/null
same "nothing was said meanwhile" '' "$(grep -v 'goes to\|left out\|linked\|files  ' "$TMP/stale.err")"
finish
