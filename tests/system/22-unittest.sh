#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a real test suite of several modules runs as it would here, and what runs is what was just saved:
# a failing test that is repaired passes in the next run, a passing one that is broken fails.
. "$(dirname "$0")/lib.sh"

start_server
new_project bank
mkdir -p bank/store tests
touch bank/__init__.py bank/store/__init__.py tests/__init__.py
cat >bank/account.py <<'PY'
from bank.store.ledger import Ledger
from bank import money


class Account:
    def __init__(self):
        self.ledger = Ledger()

    def deposit(self, amount):
        self.ledger.add(money.cents(amount))

    def balance(self):
        return self.ledger.total()
PY
printf 'def cents(amount):\n    return round(amount * 10)\n' >bank/money.py
cat >bank/store/ledger.py <<'PY'
class Ledger:
    def __init__(self):
        self.rows = []

    def add(self, cents):
        self.rows.append(cents)

    def total(self):
        return sum(self.rows)
PY
cat >tests/test_account.py <<'PY'
import unittest
from bank.account import Account


class AccountTest(unittest.TestCase):
    def test_deposits_add_up(self):
        account = Account()
        account.deposit(1.50)
        account.deposit(2.25)
        self.assertEqual(account.balance(), 375)

    def test_new_account_is_empty(self):
        self.assertEqual(Account().balance(), 0)
PY
cat >tests/test_files.py <<'PY'
import os
import pathlib
import tempfile
import unittest


class FilesTest(unittest.TestCase):
    def test_temporary_files_work(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "x").write_text("x")
            self.assertEqual(os.listdir(folder), ["x"])

    def test_the_project_is_readable(self):
        self.assertTrue((pathlib.Path(__file__).parent.parent / "pyproject.toml").exists())
PY

try silt run -- python3 -m unittest -q
same "a failing suite fails" 1 "$code"
contains "and says where" "AssertionError: 37 != 375" "$err"
contains "all tests ran" "Ran 4 tests" "$err"

sed -i 's/amount \* 10)/amount * 100)/' bank/money.py
try silt run -- python3 -m unittest -q
same "repaired, it passes" 0 "$code"
contains "with the same number of tests" "Ran 4 tests" "$err"
contains "and unittest's own words" OK "$err"

sed -i 's/100)/101)/' bank/money.py
try silt run -- python3 -m unittest -q
same "broken again in a change of one character, it fails" 1 "$code"
sed -i 's/101)/100)/' bank/money.py
try silt run -- python3 -m unittest -q
same "and passes again" 0 "$code"

cat >tests/test_new.py <<'PY'
import unittest


class NewTest(unittest.TestCase):
    def test_new(self):
        self.fail("the new module ran")
PY
try silt run -- python3 -m unittest -q
contains "a new test module is found" "the new module ran" "$err"
rm tests/test_new.py
try silt run -- python3 -m unittest -q
same "a removed one is gone" 0 "$code"
contains "for good" "Ran 4 tests" "$err"

cd tests || exit 1
try silt run test_account.py
same "a test file as a program, from its folder, does not find the package" 1 "$code"
contains "and Python says so" "No module named 'bank'" "$err"
try silt run -e PYTHONPATH=/workspace -- python3 -m unittest -q test_account
same "with PYTHONPATH it does" 0 "$code"
finish
