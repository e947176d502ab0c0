# SPDX-License-Identifier: MIT
"""What judges silt is judged here: contents, model, lines and shrinking, without any program."""
import time
import unittest

import content
import operations
import shrink
from model import DIR, FILE, Entry, Model, Node


class Contents(unittest.TestCase):
    def test_whole_and_torn(self):
        a, b = content.make(1, 5000), content.make(2, 5000)
        self.assertIsNone(content.fault('a0', a))
        self.assertIsNotNone(content.fault('a0', a[:2500] + b[2500:]))
        self.assertIsNotNone(content.fault('a0', a[:-1]))
        self.assertIsNotNone(content.fault('a0', b''))
        self.assertIsNone(content.fault('p0', b''))
        self.assertIsNone(content.fault('l0', content.line(1) + content.line(2)))
        self.assertIsNotNone(content.fault('l0', content.line(1)[:-1]))
        self.assertTrue(content.is_version(content.edited(a, 3, 500, 10, 20)))
        self.assertEqual(len(content.resized_as(a, 4)), len(a))


class TheModel(unittest.TestCase):
    def setUp(self):
        self.m = Model()
        self.m.set('d0', Node(DIR, mode=0o755))
        self.m.set('d0/a0', Node(FILE, content.make(1, 10)))

    def test_differences(self):
        found = self.m.expected()
        self.assertEqual(self.m.differences(found), [])
        self.assertEqual(len(self.m.differences(dict(found, extra=Entry(FILE, 'x', 0o644)))), 1)
        self.assertEqual(len(self.m.differences({'d0': found['d0']})), 1)
        self.assertEqual(len(self.m.differences(dict(found, d0=Entry(DIR, '', 0o700)))), 1)

    def test_others(self):
        theirs = Entry(FILE, 'theirs', 0o644)
        self.m.others_made('d0/a0', theirs, True)
        found = dict(self.m.expected(), **{'d0/a0': theirs})
        self.assertEqual(self.m.differences(found), [])
        self.m.written('d0/a0')
        self.assertEqual(len(self.m.differences(found)), 1)

    def test_products(self):
        self.m.others_made('d0/o0', Entry(FILE, 'made', 0o644), True)
        self.assertEqual(len(self.m.differences(self.m.expected())), 1)
        found = dict(self.m.expected(), **{'d0/o0': Entry(FILE, 'made', 0o644)})
        self.assertEqual(self.m.differences(found), [])
        self.m.drop('d0')
        self.assertEqual(self.m.differences({'d0': found['d0'], 'd0/o0': found['d0/o0']}), [])
        self.assertEqual(len(self.m.differences(found)), 1)


class Sequences(unittest.TestCase):
    def test_lines(self):
        for op in operations.invent(7, 400):
            self.assertEqual(operations.from_line(operations.to_line(op)), op)

    def test_same_seed_same_sequence(self):
        self.assertEqual(operations.invent(3, 50), operations.invent(3, 50))

    def test_shrink(self):
        found = shrink.shrink(list(range(100)), lambda ops: {13, 57} <= set(ops), time.monotonic() + 60)
        self.assertEqual(found, [13, 57])


unittest.main()
