"""The four models that records are measured on. Random data: equal bytes would flatter whoever deduplicates."""

import ml_dtypes
import numpy as np

__all__ = ["WORKLOADS", "make"]

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]

WORKLOADS = {
    "resnet": "122 arrays, 46.8 MB, the shapes of a ResNet-18",
    "large": "32 arrays, 1 GiB",
    "tiny": "10,000 arrays of 16 floats",
    "bfloat16": "200 bfloat16 arrays of 64 x 4096, 105 MB",
}


def make(workload: str) -> Arrays:
    random = np.random.default_rng(20)
    if workload == "resnet":
        return {name: _floats(random, shape) for name, shape in _resnet18().items()}
    if workload == "large":
        return {f"layer{place}.weight": _floats(random, (2048, 4096)) for place in range(32)}
    if workload == "tiny":
        return {f"block{place}.bias": _floats(random, (16,)) for place in range(10_000)}
    return {f"layer{place}.weight": _bfloat16(random, (64, 4096)) for place in range(200)}


def _floats(random: np.random.Generator, shape: Shape) -> np.ndarray:
    # The counters of BatchNorm are the one integer, and 0-d, kind of array in a ResNet.
    return random.standard_normal(shape, np.float32) if shape else random.integers(0, 2**40, (), np.int64)


def _bfloat16(random: np.random.Generator, shape: Shape) -> np.ndarray:
    return random.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)


def _resnet18() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    width = 64
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (channels, width, 3, 3), **_norm(f"{name}.bn1", channels)}
            shapes |= {f"{name}.conv2.weight": (channels, channels, 3, 3), **_norm(f"{name}.bn2", channels)}
            if width != channels:
                shapes |= {f"{name}.downsample.0.weight": (channels, width, 1, 1)}
                shapes |= _norm(f"{name}.downsample.1", channels)
            width = channels
    return shapes | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


def _norm(name: str, channels: int) -> dict[str, Shape]:
    vectors = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}
