#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a real project of several files in each of Python, Node, Go, shell and C runs by the name of its
# file, an edit shows, and what can go wrong (syntax, a missing module, file or variable, an exit code, a
# version that the runtime is not) is told with its place: one table for all five.
. "$(dirname "$0")/lib.sh"
command -v go >/dev/null && command -v node >/dev/null && command -v cc >/dev/null ||
    { echo "this needs go, node and cc: scripts/setup --test" >&2; exit 1; }
start_server

# ---- the projects

write() { mkdir -p "$(dirname "$1")" && cat >"$1"; }

python_project() {
    printf '[project]\nname = "shop"\nrequires-python = ">=3.7"\n' >pyproject.toml
    write shop/__init__.py </dev/null
    printf 'RATE = 0.19\n\ndef gross(net):\n    return round(net * (1 + RATE), 2)\n' | write shop/tax.py
    printf 'import sys\nfrom shop import tax\n\nprint("teapot", tax.gross(24.90))\nsys.exit(int(sys.argv[1]) if sys.argv[1:] else 0)\n' >main.py
    printf 'import unittest\nfrom shop import tax\n\nclass Tax(unittest.TestCase):\n    def test_gross(self):\n        self.assertEqual(tax.gross(100), 119)\n' | write tests/test_tax.py
    write tests/__init__.py </dev/null
}
node_project() {
    printf '{"name": "shop", "private": true,\n "engines": {"node": ">=12"}}\n' >package.json
    printf 'exports.rate = 0.19\nexports.gross = (net) => Math.round(net * (1 + exports.rate) * 100) / 100\n' | write lib/tax.js
    printf 'import tax from "../lib/tax.js"\nexport const label = (name, net) => `${name} ${tax.gross(net)}`\n' | write lib/label.mjs
    printf 'import { label } from "./lib/label.mjs"\n\nconsole.log(label("teapot", 24.90))\nprocess.exit(Number(process.argv[2] ?? 0))\n' >main.mjs
}
go_project() {
    printf 'module example.com/shop\n\ngo 1.18\n' >go.mod
    printf 'package main\n\nimport (\n\t"os"\n\t"strconv"\n\n\t"example.com/shop/label"\n)\n\nfunc main() {\n\tprintln2(label.Of("teapot", gross(2490)))\n\tif len(os.Args) > 1 {\n\t\tcode, _ := strconv.Atoi(os.Args[1])\n\t\tos.Exit(code)\n\t}\n}\n' >main.go
    printf 'package main\n\nimport "os"\n\nconst rate = 19\n\nfunc gross(net int) int { return (net*(100+rate) + 50) / 100 }\n\nfunc println2(s string) { os.Stdout.WriteString(s + "\\n") }\n' >tax.go
    printf 'package label\n\nimport "strconv"\n\nfunc Of(name string, cents int) string {\n\treturn name + " " + strconv.Itoa(cents/100) + "." + strconv.Itoa(cents%%100)\n}\n' | write label/label.go
}
shell_project() {
    printf 'RATE=19\ngross() { echo $((($1 * (100 + RATE) + 50) / 100)); }\n' | write lib/tax.sh
    printf '. lib/tax.sh\n\nset -- "$(gross 2490)" "${1:-0}"\necho "teapot ${1%%??}.${1#??}"\nexit "$2"\n' >main.sh
}
c_project() {
    printf '#ifndef TAX_H\n#define TAX_H\n#define RATE 19\nint gross(int cents);\n#endif\n' >tax.h
    printf '#include "tax.h"\n\nint gross(int cents)\n{\n    return (cents * (100 + RATE) + 50) / 100;\n}\n' >tax.c
    printf '#include <stdio.h>\n#include <stdlib.h>\n#include "tax.h"\n\nint main(int argc, char **argv)\n{\n    int g = gross(2490);\n    printf("teapot %%d.%%02d\\n", g / 100, g %% 100);\n    return argc > 1 ? atoi(argv[1]) : 0;\n}\n' >main.c
}
# What a package manager would have put there, by hand: the hints say that this helps.
vendor_node() {
    printf 'module.exports = "Earl Grey"\n' | write node_modules/tea/index.js
    echo '!node_modules/' >.siltignore
}
vendor_go() {
    printf '\nrequire example.com/tea v1.0.0\n' >>go.mod
    printf '# example.com/tea v1.0.0\n## explicit\nexample.com/tea\n' | write vendor/modules.txt
    printf 'package tea\n\nconst Kind = "Earl Grey"\n' | write vendor/example.com/tea/tea.go
}

# ---- the table

# LANGUAGE | what is done to the project first | what is run | exit code | standard output | diagnosis as
# code, subject, file, line. Rows of a language follow each other in one project.
scenarios() {
    cat <<'TABLE'
python | python_project | main.py | 0 | teapot 29.63 | -
python | sed -i s/0.19/0.07/ shop/tax.py | main.py | 0 | teapot 26.64 | -
python | : | main.py 3 | 3 | teapot 26.64 | -
python | sed -i s/119/107/ tests/test_tax.py | -- python3 -m unittest -q | 0 | | -
python | echo 'x = = 1' >>shop/tax.py | main.py | 1 | | syntax_error - shop/tax.py 5
python | sed -i '$d' shop/tax.py; sed -i '1i import tea' main.py | main.py | 1 | | missing_module tea main.py 1
python | echo 'KIND = "Earl Grey"' >tea.py; sed -i '2i print(tea.KIND)' main.py | main.py | 0 | Earl Grey/teapot 26.64 | -
python | echo 'open("prices.csv")' >main.py | main.py | 1 | | missing_file prices.csv main.py 1
python | echo 'import os; os.environ["API_KEY"]' >main.py | main.py | 1 | | missing_variable API_KEY main.py 1
python | echo 'open("/usr/x", "w")' >main.py | main.py | 1 | | read_only /usr/x main.py 1
python | sed -i s/3.7/3.99/ pyproject.toml; echo 'type X = = int' >main.py | main.py | 1 | | version_mismatch >=3.99 pyproject.toml 3
node | node_project | main.mjs | 0 | teapot 29.63 | -
node | sed -i s/0.19/0.07/ lib/tax.js | main.mjs | 0 | teapot 26.64 | -
node | : | main.mjs 3 | 3 | teapot 26.64 | -
node | echo 'exports.x = = 1' >>lib/tax.js | main.mjs | 1 | | syntax_error - lib/tax.js 3
node | sed -i '$d' lib/tax.js; printf 'const tea = require("tea")\nconsole.log(tea)\n' >tea.cjs | tea.cjs | 1 | | missing_module tea tea.cjs 1
node | vendor_node | tea.cjs | 0 | Earl Grey | -
node | echo 'import tea from "tee"' >tea.mjs | tea.mjs | 1 | | missing_module tee tea.mjs -
node | echo 'require("fs").readFileSync("prices.csv")' >main.js | main.js | 1 | | missing_file prices.csv main.js 1
node | echo 'null.x' >main.js; sed -i 's/>=12/>=99/' package.json | main.js | 1 | | version_mismatch >=99 package.json 2
go | go_project | main.go | 0 | teapot 29.63 | -
go | sed -i 's/= 19/= 7/' tax.go | main.go | 0 | teapot 26.64 | -
go | : | main.go 3 | 3 | teapot 26.64 | -
go | echo 'func broken( {' >>label/label.go | main.go | 2 | | syntax_error - label/label.go 8
go | sed -i '$d' label/label.go; printf 'package main\n\nimport "example.com/tea"\n\nfunc init() { println2(tea.Kind) }\n' >tea.go | main.go | 1 | | missing_module example.com/tea tea.go 3
go | vendor_go | main.go | 0 | Earl Grey/teapot 26.64 | -
go | rm tea.go; echo 'var unused int = "text"' >>tax.go | main.go | 2 | | compile_error - tax.go 10
go | sed -i 's/= "text"/= 1/' tax.go; sed -i s/1.18/1.99/ go.mod; echo 'var x = nosuch' >>tax.go | main.go | 2 | | version_mismatch 1.99 go.mod 3
shell | shell_project | main.sh | 0 | teapot 29.63 | -
shell | sed -i s/19/7/ lib/tax.sh | main.sh | 0 | teapot 26.64 | -
shell | : | main.sh 3 | 3 | teapot 26.64 | -
shell | echo 'if true' >>lib/tax.sh | main.sh | 2 | | syntax_error - lib/tax.sh 4
shell | sed -i '$d' lib/tax.sh; sed -i '2i brew tea' main.sh; echo 'brew tea' >brew.sh | brew.sh | 127 | | command_not_found brew brew.sh 1
shell | printf 'set -u\necho $API_KEY\n' >brew.sh | brew.sh | 2 | | missing_variable API_KEY brew.sh 2
shell | printf '#!/bin/bash\n\nset -e\n. lib/nothere.sh\n' >brew.sh | brew.sh | 1 | | missing_file lib/nothere.sh brew.sh 4
c | c_project | main.c | 0 | teapot 29.63 | -
c | sed -i 's/RATE 19/RATE 7/' tax.h | main.c | 0 | teapot 26.64 | -
c | : | main.c 3 | 3 | teapot 26.64 | -
c | sed -i 's/RATE) + 50/RATE + 50/' tax.c | main.c | 1 | | compile_error - tax.c 5
c | sed -i 's/RATE + 50/RATE) + 50/' tax.c; sed -i '1i #include "tea.h"' main.c | main.c | 1 | | missing_module tea.h main.c 1
c | echo '#define KIND "Earl Grey"' >tea.h; sed -i 's/teapot/" KIND "/' main.c | main.c | 0 | Earl Grey 26.64 | -
c | echo 'int nothere(void); int main(void) { return nothere(); }' >main.c | main.c | 1 | | compile_error nothere main.c 1
c | echo 'int main(void) { *(volatile int *)0 = 1; }' >main.c | main.c | null | | crashed - - -
TABLE
}

# Without a field: "-". Lines of output are joined by "/".
summary() {
    jq -r '"\(.exit_code) | \(.stdout | rtrimstr("\n") | gsub("\n"; "/")) | \(.diagnosis |
        if . then "\(.code) \(.subject // "-") \(.file // "-") \(.line // "-")" else "-" end)"'
}
trim() { sed 's/^ *//; s/ *$//' <<<"$1"; }

language=
while IFS='|' read -r of first what exit out diagnosis; do
    of=$(trim "$of") first=$(trim "$first") what=$(trim "$what")
    if [ "$of" != "$language" ]; then
        language=$of
        new_project "$of"
        rm -f pyproject.toml
        mkdir -p .git # its root, whatever lies in it
    fi
    eval "$first" || not_ok "preparing: $first"
    # shellcheck disable=SC2086
    silt run --json $what >"$TMP/run.json" 2>"$TMP/run.err"
    same "$of: $what after ${first:0:60}" "$(trim "$exit") | $(trim "$out") | $(trim "$diagnosis")" \
        "$(summary <"$TMP/run.json" 2>&1 || cat "$TMP/run.err")"
done < <(scenarios)

# ---- what a person sees

cd "$TMP/node" || exit 1
try silt run tea.mjs
same "the exit code is the program's" 1 "$code"
contains "the hint says how to install a package" "npm install" "$err"
cd "$TMP/shell" || exit 1
printf 'set -u\necho "key $API_KEY"\n' >brew.sh
try silt run brew.sh
contains "the hint says how to give a variable" "silt run -e API_KEY=VALUE" "$err"
try silt run -e API_KEY=1 brew.sh
same "which then works" "key 1" "$out"
finish
