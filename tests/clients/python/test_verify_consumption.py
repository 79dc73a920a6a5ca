"""The checker of scripts/verify_consumption.py, tried on planted anomalies."""

import importlib.util
import pathlib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SPEC = importlib.util.spec_from_file_location(
    "verify_consumption", ROOT / "scripts" / "verify_consumption.py"
)
verify_consumption = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(verify_consumption)

GOOD = [(0, 0), (1, 1), (2, 2), (3, 3)]
ACKNOWLEDGED = [(0, number, offset) for offset, number in GOOD]


class PlantedAnomalies(unittest.TestCase):
    def kinds(self, records, acknowledged=None):
        acknowledged = ACKNOWLEDGED if acknowledged is None else acknowledged
        problems = verify_consumption.check(acknowledged, {0: records})
        return [problem.split(":")[0] for problem in problems]

    def test_an_honest_log_passes(self):
        self.assertEqual(self.kinds(GOOD), [])

    def test_unacknowledged_records_may_be_there(self):
        self.assertEqual(self.kinds(GOOD, ACKNOWLEDGED[:2]), [])

    def test_a_lost_tail_is_found(self):
        self.assertEqual(self.kinds(GOOD[:3]), ["lost"])

    def test_a_lost_head_is_found(self):
        self.assertEqual(self.kinds(GOOD[1:]), ["offsets", "gap", "lost"])

    def test_a_lost_record_whose_offset_was_given_again_is_found(self):
        records = [(0, 0), (1, 2), (2, 3)]
        self.assertEqual(self.kinds(records), ["gap", "lost", "moved", "moved"])

    def test_a_gap_of_unacknowledged_numbers_is_found(self):
        self.assertEqual(self.kinds([(0, 0), (1, 2)], []), ["gap"])

    def test_a_hole_in_the_offsets_is_found(self):
        records = [(0, 0), (1, 1), (5, 2), (6, 3)]
        self.assertEqual(self.kinds(records), ["offsets", "moved", "moved"])

    def test_a_duplicate_is_found(self):
        self.assertEqual(self.kinds(GOOD + [(4, 3)]), ["duplicate", "moved"])

    def test_an_early_duplicate_is_found(self):
        self.assertEqual(self.kinds(GOOD + [(4, 0)]), ["duplicate", "moved"])

    def test_swapped_records_are_found(self):
        records = [(0, 0), (1, 2), (2, 1), (3, 3)]
        self.assertEqual(self.kinds(records), ["gap", "order", "moved", "moved"])

    def test_a_partition_that_vanished_is_found(self):
        problems = verify_consumption.check([(1, 0, 0)], {0: GOOD})
        self.assertEqual(problems, ["lost: partition 1: 0, acknowledged at 0"])


if __name__ == "__main__":
    unittest.main()
