"""Verdicts on solid updates: the same, in the same words, as on those of which nothing is known."""

import numpy as np
import pytest

from solid_records import forget, plain, solid
from umbel.aggregation import Update
from umbel.errors import UpdateRejected
from umbel.gate import Gate
from umbel.records import Array, ParametersRecord, array_from_numpy

NAMES = [f"{place}" for place in range(40)]


@pytest.fixture(autouse=True)
def _nothing_known():
    forget()
    yield
    forget()


class TestGate:
    def model(self):
        arrays = {name: np.ones(5, [np.float32, np.int32, np.float16][int(name) % 3]) for name in NAMES}
        return arrays | {"flag": np.array([True, False]), "c": np.ones(3, np.complex64)}

    def verdicts(self, arrays, **bounds):
        """Return what is said of arrays, by templates and updates that are solid or not."""
        template, record = ParametersRecord.from_numpy(self.model()), ParametersRecord.from_numpy(arrays)
        found = set()
        for ours in (plain(template), solid(template), solid(template, "other")):
            check = Gate(**bounds).against(ours)
            for theirs in (plain(record), solid(record)):
                for _ in range(2):
                    try:
                        found.add(check(Update("a", 1, theirs)))
                    except UpdateRejected as error:
                        found.add((str(error), error.at))
        return found

    @pytest.mark.parametrize("name", ["0", "2", "39", "38", "c"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_is_found_anywhere(self, name, value):
        arrays = self.model()
        arrays[name][-1] = value
        ((text, at),) = self.verdicts(arrays)
        assert "expected finite numbers, got" in text
        assert at == f"parameters_records.model[{name!r}]"
        (verdict,) = self.verdicts(arrays, finite=False)
        assert verdict.node == "a"

    def test_bools_are_looked_at_in_any_case(self):
        arrays = self.model()
        arrays["flag"] = np.uint8([1, 2]).view(bool)
        for finite in (True, False):
            ((text, at),) = self.verdicts(arrays, finite=finite)
            assert "expected bytes of 0 or 1 for bool, got 1 others among 2" in text
            assert at == "parameters_records.model['flag']"

    def test_large_finite_numbers_pass_whatever_their_squares_are(self):
        arrays = self.model()
        arrays["0"][:] = np.finfo(np.float32).max
        assert len(self.verdicts(arrays)) == 1
        ((text, _),) = self.verdicts(arrays, max_norm=1.0)
        assert "expected a norm of at most 1.0 from the model" in text
        (verdict,) = self.verdicts(self.model(), max_norm=1.0)
        assert verdict.norm == 0

    @pytest.mark.parametrize("change", ["shape", "dtype", "name", "order", "missing", "more"])
    def test_other_arrays_are_told_apart(self, change):
        arrays = self.model()
        if change == "shape":
            arrays["3"] = np.ones((5, 1), np.float32)
        elif change == "dtype":
            arrays["3"] = np.ones(5, np.int32)
        elif change in ("name", "missing"):
            arrays.pop("3")
        if change in ("name", "more"):
            arrays["new"] = np.ones(5, np.float32)
        found = self.verdicts(dict(reversed(arrays.items())) if change == "order" else arrays)
        assert len(found) == 1
        assert (found == {("a", None)}) == (change == "order")

    @pytest.mark.parametrize("change", ["shape", "set", "delete", "more", "values"])
    def test_a_template_that_changes_is_judged_by_as_if_nothing_were_known_of_it(self, change):
        record = ParametersRecord.from_numpy({"v": np.ones(2, np.float32), "w": np.ones((2, 3), np.float32)})
        said = []
        for make in (plain, solid):
            template = make(
                ParametersRecord(
                    {name: Array(a.dtype, a.shape, "raw", a.data) for name, a in record.items()}, keep_input=True
                )
            )
            check = Gate(max_norm=1e9).against(template)
            if change == "shape":
                template["w"].shape[:] = [3, 2]
            elif change == "set":
                template["w"] = array_from_numpy(np.ones(6, np.float32), "raw")
            elif change == "delete":
                del template["v"]
            elif change == "more":
                template["x"] = array_from_numpy(np.ones(1), "raw")
            else:
                template["w"] = array_from_numpy(np.zeros((2, 3), np.float32), "raw")
            updates = [record, plain(record), solid(record), plain(template)]
            said += [_said(check, each) for each in (updates if change == "shape" else [*updates, solid(template)])]
        half = len(said) // 2
        assert said[:half] == said[half:]


def _said(check, record):
    try:
        return check(Update("a", 1, record))
    except UpdateRejected as error:
        return str(error), error.at
    except KeyError as error:
        return repr(error)
