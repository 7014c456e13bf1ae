"""Digests that are known: computed once for a record that nobody can change, and not believed for any other."""

import numpy as np
from blake3 import blake3

from solid_records import solid
from umbel.aggregation import Update, weighted_mean
from umbel.envelope import Part, pack
from umbel.records import Arena, ParametersRecord, RecordSet, array_from_numpy, digest, dumps, loads
from umbel.records._container import known_digest

SIZE = 20_000  # floats: more than travels inside a description


def model(value):
    return solid(ParametersRecord.from_numpy({"a": np.full(SIZE, value, np.float32), "b": np.ones(3, np.float32)}))


def mean():
    updates = [Update(f"n{place}", 1.0, model(place)) for place in range(3)]
    fold = weighted_mean().reduce
    return fold.finish(fold.start(updates[0].record), updates)


class Store:
    """Takes note of what it is asked to store, and whether it was told the digest."""

    def __init__(self):
        self.put_, self.told = [], []

    def put(self, segments):
        part = Part(digest_of(segments), sum(map(len, segments)))
        self.put_.append(part.digest)
        return part

    def known(self, segments, name):
        self.told.append((name, digest_of(segments)))
        return Part(name, sum(map(len, segments)))


def digest_of(segments):
    return f"blake3:{blake3(b''.join(segments)).hexdigest()}"


def test_a_result_is_hashed_once():
    result = mean()
    assert known_digest(result) is None
    name = digest(result)
    assert known_digest(result) == known_digest(result.copy()) == name
    store = Store()
    content = pack(RecordSet({"state": result}), store.put, store.known)
    assert (store.put_, store.told) == ([], [(name, name)])
    assert content.records[0].part.digest == name


def test_without_a_place_for_known_ones_everything_is_hashed():
    result = mean()
    name, store = digest(result), Store()
    pack(RecordSet({"model": result}), store.put)
    assert store.put_ == [name]


def test_another_array_is_another_digest():
    result = mean()
    before = digest(result)
    result["b"] = array_from_numpy(np.zeros(3, np.float32), "raw")
    assert known_digest(result) is None
    assert digest(result) not in (before, None)


def test_another_shape_is_another_digest():
    result = mean()
    before = digest(result)
    result["a"].shape[:] = [2, SIZE // 2]
    assert known_digest(result) is None
    assert digest(result) != before


def test_what_somebody_may_change_is_hashed_each_time():
    buffer, arena = bytearray(b"".join(dumps(model(1.0)))), Arena()
    (read,) = loads(buffer).parameters_records.values()
    before = digest(read)
    buffer[-1] ^= 1
    assert (known_digest(read), digest(read) == before) == (None, False)

    arrays = model(1.0).to_numpy()
    first = ParametersRecord.from_numpy(arrays, arena=arena)
    before = digest(first)
    ParametersRecord.from_numpy({name: array + 1 for name, array in arrays.items()}, arena=arena)
    assert digest(first) != before
