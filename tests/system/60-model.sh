#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: random sequences of operations and faults against real programs end as a model says; the reader
# that checks them can tell torn contents, and the shrinker shrinks. See tests/model/DESIGN.md.
. "$(dirname "$0")/lib.sh"

model() { env -i PATH="$PLAIN_PATH" HOME="$CLIENT_HOME" TMPDIR="$TMP" BUILD="$BUILD" ./scripts/model "$@" >"$TMP/model.out" 2>&1; }

check "shrinking, contents and the model itself" env -i PATH="$PLAIN_PATH" HOME="$CLIENT_HOME" \
    python3 -B -X utf8 tests/model/selftest.py
# A sanitised build takes some times as long: fewer sequences.
seeds=3
[ -z "$SANITISED" ] || seeds=1
for ((seed = 1; seed <= seeds; seed++)); do
    check "seed $seed" model --seed "$seed" --seeds 1 --ops 40 --shrink-minutes 0
    [ "$FAILED" -eq 0 ] || cat "$TMP/model.out" >&2
done
finish
