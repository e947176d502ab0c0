#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: on Debian 12's own kernel, with cgroups of version 2, limits hold, also for an ordinary user who
# was given a cgroup, and edits within one tick are seen: scenarios 71, 73 and 84 in the guest of
# scripts/test-guest. Skipped where there is no emulator, and for a sanitised build, which an emulated
# processor is too slow for.
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITISED" ]; then
    ok 'skipped: a sanitised build is not run in an emulator'
    finish
fi
./scripts/test-guest --timeout 540 71 73 84 84@delegated >"$TMP/guest.out" 2>&1
code=$?
if [ "$code" -eq 77 ]; then
    ok "skipped: $(tail -n 1 "$TMP/guest.out")"
    finish
fi
while read -r line; do
    case $line in
    'ok - '*) ok "in the guest: ${line#ok - }" ;;
    'not ok - '*) not_ok "in the guest: ${line#not ok - }" ;;
    *) printf '%s\n' "$line" >&2 ;;
    esac
done <"$TMP/guest.out"
same 'the guest ended by itself, and well' 0 "$code"
finish
