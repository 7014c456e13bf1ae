"""State dicts against the real PyTorch."""

import gc
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.errors import BadDtype, BadName, DuplicateName, RecordError, RecordTypeError
from umbel.records import Array, ParametersRecord, array_from_numpy

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'umbel[torch]'")

from umbel.interop.torch import to_record, to_state_dict  # noqa: E402 - only where PyTorch is

INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64]
UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
COMPLEX = [torch.complex64, torch.complex128]
FLOATS8 = [
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
DTYPES = [torch.bool, *INTEGERS, *UNSIGNED, *FLOATS, *COMPLEX, *FLOATS8]


def every_byte(dtype, shape=(4, 64)):
    """Return a tensor whose bytes take all values (NaNs and their payloads among them)."""
    count = int(np.prod(shape)) * dtype.itemsize
    if not count:
        return torch.empty(shape, dtype=dtype)
    pattern = np.arange(count, dtype=np.uint32) * 167 % 256
    if dtype == torch.bool:
        pattern %= 2
    return torch.from_numpy(pattern.astype(np.uint8)).view(dtype).reshape(shape)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(left, right):
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].shape == right[name].shape, name
        assert bits(left[name]) == bits(right[name]), name


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype, copy):
    state = {"whole": every_byte(dtype), "scalar": every_byte(dtype, (1,))[0], "empty": every_byte(dtype, (3, 0, 2))}

    record = to_record(state, copy=copy)

    assert {array.dtype for array in record.values()} == {str(dtype).removeprefix("torch.")}
    same(to_state_dict(record), state)


def test_the_dtypes_that_the_two_share_are_all_tested():
    from umbel.interop import torch as bridge  # noqa: PLC0415 - the private table, for this test alone

    assert set(bridge._NUMPY) == set(DTYPES)


def test_a_module_trains_on_after_a_round_trip():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten())
    model(torch.randn(4, 1, 5, 5))
    twin = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten())

    twin.load_state_dict(to_state_dict(to_record(model.state_dict())))

    same(twin.state_dict(), model.state_dict())
    assert twin.state_dict()["1.num_batches_tracked"].dtype == torch.int64
    twin(torch.randn(4, 1, 5, 5)).sum().backward()


def test_parameters_lose_their_gradient_and_the_result_can_be_written():
    parameter = torch.nn.Parameter(torch.ones(3))
    (parameter * 2).sum().backward()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = to_state_dict(to_record({"w": parameter, "v": parameter * 3}))

    assert not back["w"].requires_grad
    back["w"] += 1
    assert parameter.tolist() == [1, 1, 1]


def test_order_is_kept():
    names = [f"layer.{place * 7 % 10}" for place in range(10)]
    assert list(to_record({name: torch.zeros(1) for name in names})) == names


def test_a_snapshot_does_not_follow_training_and_a_view_does():
    weight = torch.zeros(4)
    snapshot, view = to_record({"w": weight}), to_record({"w": weight}, copy=False)

    weight += 1

    assert snapshot["w"].numpy().tolist() == [0, 0, 0, 0]
    assert view["w"].numpy().tolist() == [1, 1, 1, 1]
    assert np.shares_memory(view["w"].numpy(copy=False), weight.numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e5m2], ids=str)
def test_a_view_of_a_dtype_that_numpy_lacks_copies_nothing_either(dtype):
    weight = every_byte(dtype)
    view = to_record({"w": weight}, copy=False)
    assert np.frombuffer(view["w"].data, np.uint8).ctypes.data == weight.data_ptr()


def test_a_view_keeps_the_memory_alive():
    record = to_record({"w": torch.arange(1000.0)}, copy=False)
    gc.collect()
    junk = [torch.full((1000,), -1.0) for _ in range(10)]
    assert record["w"].numpy().sum() == 499_500
    del junk


@pytest.mark.parametrize("copy", [True, False])
def test_layouts_come_back_equal(copy):
    whole = torch.randn(4, 6, 2, 2)
    state = {
        "transposed": whole.permute(3, 1, 0, 2).clone(memory_format=torch.preserve_format),
        "channels last": whole.clone(memory_format=torch.channels_last),
        "strided": torch.randn(8, 8)[::2, 1::3],
        "expanded": torch.randn(3, 1).expand(3, 5),
        "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
        "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
    }
    assert state["conjugated"].is_conj()
    assert state["negated"].is_neg()

    back = to_state_dict(to_record(state, copy=copy))

    assert list(back) == list(state)
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


def shares(left, right):
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 50, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("copy", [True, False])
def test_tied_weights_are_stored_once_and_tied_again(copy):
    state = Tied().state_dict()

    record = to_record(state, copy=copy)
    back = to_state_dict(record)

    assert list(record) == ["embedding.weight", "norm.weight", "norm.bias", "head.weight -> embedding.weight"]
    assert sum(len(array.data) for array in record.values()) == (50 * 8 + 8 + 8) * 4
    same(back, state)
    assert shares(back["head.weight"], back["embedding.weight"])
    assert not shares(back["norm.weight"], back["norm.bias"])
    back["head.weight"][3] = 7
    assert torch.equal(back["embedding.weight"][3], torch.full((8,), 7.0))
    Tied().load_state_dict(back)


def test_a_tensor_tied_three_times_is_stored_once():
    weight = torch.randn(4)
    back = to_state_dict(to_record({"a": weight, "b": torch.zeros(1), "c": weight, "d": weight}))
    assert list(back) == ["a", "b", "c", "d"]
    assert len({back[name].data_ptr() for name in "acd"}) == 1


def test_parts_of_one_storage_that_do_not_touch_are_stored_apart():
    flat = torch.arange(24.0)
    grid = flat[12:].view(3, 4)
    state = {"head": flat[:6], "rest": flat[6:12], "left": grid[:, :2], "right": grid[:, 2:]}

    back = to_state_dict(to_record(state))

    same(back, state)
    assert len({back[name].untyped_storage().data_ptr() for name in back}) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda t: t[:4], lambda t: t[2:]),
        (lambda t: t, lambda t: t[0]),
        (lambda t: t, lambda t: t.T),
        (lambda t: t, lambda t: t.view(torch.int32)),
        (lambda t: t, lambda t: t.reshape(-1)),
        (lambda t: t[:, :3], lambda t: t[:, 2:]),
    ],
    ids=["overlap", "row", "transpose", "dtype", "reshape", "columns"],
)
def test_views_that_overlap_without_being_the_same_are_refused_by_name(first, second):
    whole = torch.randn(6, 6)
    with pytest.raises(RecordError, match=r"'early' and 'late' share part of their memory.*clone") as caught:
        to_record({"early": first(whole), "other": torch.zeros(2), "late": second(whole)})
    assert "late" in caught.value.at


def test_two_kinds_of_conjugate_of_one_memory_are_refused():
    whole = torch.randn(3, dtype=torch.complex64)
    with pytest.raises(RecordError, match="share part of their memory"):
        to_record({"a": whole, "b": whole.conj()})


def test_empty_tensors_are_never_tied():
    state = {"a": torch.zeros(0, 3), "b": torch.zeros(0, 3)}
    same(to_state_dict(to_record(state)), state)


def test_tying_survives_elementwise_work_on_the_arrays():
    record = to_record(Tied().state_dict())
    doubled = ParametersRecord.from_numpy({name: array * 2 for name, array in record.to_numpy().items()})
    back = to_state_dict(doubled)
    assert shares(back["head.weight"], back["embedding.weight"])
    assert torch.equal(back["head.weight"], to_state_dict(record)["head.weight"] * 2)


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces that these will go
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def sparse_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces that these are in beta
        return torch.eye(2).to_sparse_csr()


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces that these are prototypes
        return torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (lambda: None, "NoneType"),
        (lambda: {"scale": 1}, "dict"),
        (lambda: np.ones(2), "ndarray"),
        (lambda: 3.0, "float"),
        (lambda: torch.eye(2).to_sparse(), "to_dense"),
        (sparse_rows, "to_dense"),
        (quantised, "dequantize"),
        (nested, "dense"),
        (lambda: torch.ones(2, device="meta"), "meta device"),
        (lambda: torch.nn.LazyLinear(3).weight, "run the module once"),
    ],
    ids=["none", "dict", "ndarray", "float", "sparse", "csr", "quantised", "nested", "meta", "lazy"],
)
def test_entries_without_plain_memory_are_refused_by_name(entry, words):
    with pytest.raises(RecordTypeError, match=words) as caught:
        to_record({"weight": torch.ones(1), "block._extra_state": entry()})
    assert "block._extra_state" in str(caught.value)


def test_a_fake_tensor_is_refused_by_name():
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415 - slow to import, and only used here

    with FakeTensorMode():
        fake = torch.ones(2)
    with pytest.raises(RecordTypeError, match=r"block\.weight"):
        to_record({"block.weight": fake})


@pytest.mark.parametrize("dtype", [torch.complex32, torch.float4_e2m1fn_x2, torch.uint4, torch.bits8], ids=str)
def test_a_dtype_that_records_lack_is_refused_by_name(dtype):
    with pytest.raises(BadDtype, match=r"records have no torch\..*layer\.packed"):
        to_record({"layer.packed": torch.zeros(4, dtype=torch.uint8).view(dtype)})


@pytest.mark.parametrize("state", [[torch.ones(1)], None, torch.nn.Linear(1, 1)], ids=["list", "none", "module"])
def test_only_mappings_are_state_dicts(state):
    with pytest.raises(RecordTypeError, match="state_dict"):
        to_record(state)


def test_names_are_checked():
    with pytest.raises(RecordTypeError, match="expected a str"):
        to_record({1: torch.ones(1)})
    with pytest.raises(BadName, match="tied weight"):
        to_record({"a -> b": torch.ones(1)})


def test_a_refused_state_dict_is_left_alone():
    state = {"a": torch.ones(1), "b": None}
    with pytest.raises(RecordTypeError):
        to_record(state)
    assert list(state) == ["a", "b"]


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"a -> b": np.zeros(0)}, BadName),
        ({"a": np.zeros(1), "b -> c -> a": np.zeros(0)}, BadName),
        ({"a": np.zeros(1), "b -> a": np.zeros(1)}, BadName),
        ({"a": np.zeros(1), "b": np.zeros(1), "b -> a": np.zeros(0)}, DuplicateName),
    ],
    ids=["dangling", "chain", "with data", "twice"],
)
def test_ties_that_cannot_be_are_refused(arrays, error):
    with pytest.raises(error, match="ParametersRecord"):
        to_state_dict(ParametersRecord.from_numpy(arrays))


def test_arrays_of_other_serialisations_become_tensors():
    record = ParametersRecord(
        {
            "big-endian": array_from_numpy(np.arange(6, dtype=">f4").reshape(2, 3)),
            "Fortran": array_from_numpy(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        }
    )
    back = to_state_dict(record)
    assert back["big-endian"].tolist() == back["Fortran"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back["big-endian"].dtype == torch.float32


@pytest.mark.parametrize("name", ["int4", "float8_e3m4", "float4_e2m1fn"])
def test_a_dtype_that_pytorch_lacks_is_refused_by_name(name):
    record = ParametersRecord({"tiny": Array(name, [2], "raw", b"\x01\x02")})
    with pytest.raises(BadDtype, match=rf"PyTorch has no dtype {name}.*tiny"):
        to_state_dict(record)


def test_only_records_become_state_dicts():
    with pytest.raises(RecordTypeError, match="expected a ParametersRecord, got dict"):
        to_state_dict({"a": torch.ones(1)})


def test_without_pytorch_the_error_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import umbel.interop.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra" in done.stderr
    assert "pip install 'umbel[torch]'" in done.stderr


SHAPES = st.lists(st.integers(0, 4), max_size=4)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).filter(lambda name: " -> " not in name),
        st.tuples(st.sampled_from(DTYPES), SHAPES, st.permutations(range(4))),
        max_size=8,
    )
)
@settings(deadline=None)
def test_any_state_dict_comes_back(plan):
    state = {}
    for name, (dtype, shape, order) in plan.items():
        tensor = every_byte(dtype, tuple(shape))
        state[name] = tensor.permute([axis for axis in order if axis < len(shape)])

    same(to_state_dict(to_record(state)), state)
    same(to_state_dict(to_record(state, copy=False)), state)
