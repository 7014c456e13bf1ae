"""Which Ray cluster is meant, and whether it is the one that is there: all of it without Ray."""

import pytest

from umbel.engines import RayCluster
from umbel.engines._raycluster import may_lead_to
from umbel.errors import UsageError

HERE = "192.0.2.2"
THERE = "192.0.2.7"


@pytest.mark.parametrize(
    "address",
    [
        None,
        "auto",
        "host:6379",
        "10.0.0.1:6379",
        "[::1]:6379",
        "ray://host:10001",
        "ray://[::1]:10001",
        "other://place",
    ],
)
def test_an_address(address):
    assert RayCluster(address).address == address


@pytest.mark.parametrize(
    "address", ["", "host", "local", "host:", ":6379", "host:0", "host:65536", "ray://host", "://a", "a b:1", 6379]
)
def test_what_is_no_address(address):
    with pytest.raises(UsageError, match=r"\"auto\", \"host:6379\" or \"ray://host:10001\", or none .* - at address"):
        RayCluster(address)


@pytest.mark.parametrize("amounts", [(1, 0), (0.5, 0.25), (1.5, 2), (0, 0), (64, 8.0), (0.0001, 1)])
def test_amounts(amounts):
    cluster = RayCluster(None, *amounts)
    assert (cluster.num_cpus, cluster.num_gpus) == amounts


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), 1e-5, True, "1", None])
@pytest.mark.parametrize("name", ["num_cpus", "num_gpus"])
def test_what_is_no_amount(name, amount):
    with pytest.raises(UsageError, match=f"how much of the cluster a node takes, 0, or 0.0001 or more, .* - at {name}"):
        RayCluster(**{name: amount})


def test_gpus_are_shared_or_whole():
    with pytest.raises(UsageError, match=r"a share of one GPU, or a whole number of them, got 1\.5 - at num_gpus"):
        RayCluster(num_gpus=1.5)


@pytest.mark.parametrize(
    ("asked", "known", "by_client", "may"),
    [
        ("auto", [f"{HERE}:6379"], False, True),
        ("other://place", [f"{HERE}:6379"], False, True),  # nobody knows where that leads
        (f"{HERE}:6379", [f"{HERE}:6379"], False, True),
        ("127.0.0.1:6379", [f"{HERE}:6379"], False, True),
        ("localhost:6379", [f"{HERE}:6379"], False, True),
        (f"{HERE}:6379", ["127.0.0.1:6379"], False, True),
        (f"{HERE}:6380", [f"{HERE}:6379"], False, False),
        ("127.0.0.1:6379", [f"{THERE}:6379"], False, False),
        (f"{THERE}:6379", [f"{HERE}:6379"], False, False),
        (f"{THERE}:6379", [f"{HERE}:6380", f"{THERE}:6379", f"{HERE}:6379"], False, True),
        # The port for clients is another one than that of the cluster.
        (f"ray://{HERE}:10001", [f"{HERE}:6379"], False, True),
        (f"ray://{THERE}:10001", [f"{HERE}:6379"], False, False),
        (f"ray://{THERE}:10001", [f"{HERE}:6379"], True, True),  # through a tunnel, perhaps
        (f"ray://{THERE}:10001", [f"{HERE}:6379", f"ray://{HERE}:10001"], True, False),
        (f"ray://{HERE}:10002", [f"{HERE}:6379", f"ray://{HERE}:10001"], True, False),
        (f"{THERE}:6379", [f"{HERE}:6379", f"ray://{HERE}:10001"], True, False),
    ],
)
def test_whether_an_address_may_be_that_of_the_cluster_that_is_known(asked, known, by_client, may):
    assert may_lead_to(asked, known, HERE, by_client=by_client) is may
