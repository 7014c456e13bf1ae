"""What nodes add to their gradients: the papers' formulas, and what is refused."""

import numpy as np
import pytest

from umbel.drift import controlled, dynamic, next_control, next_linear, normaliser, proximal, zeros
from umbel.errors import BadName, StrategyError

rng = np.random.default_rng(5)


def arrays(dtype=np.float64):
    return {"w": rng.standard_normal((2, 3)).astype(dtype), "b": rng.standard_normal(3).astype(dtype)}


def loss(w, anchor, mu, linear):
    return mu / 2 * np.sum((w - anchor) ** 2) - np.sum(linear * w)


def slope(function, w, step=1e-6):
    """The gradient by central differences."""
    out = np.empty_like(w)
    for place in np.ndindex(w.shape):
        delta = np.zeros_like(w)
        delta[place] = step
        out[place] = (function(w + delta) - function(w - delta)) / (2 * step)
    return out


def test_proximal_is_the_gradient_of_the_term():
    gradient, weights, received = arrays(), arrays(), arrays()
    found = proximal(gradient, weights, received, mu=0.3)
    for name, g in gradient.items():
        term = slope(lambda w, name=name: loss(w, received[name], 0.3, 0.0), weights[name])
        np.testing.assert_allclose(found[name], g + term, rtol=1e-6, atol=1e-8)


def test_dynamic_is_the_gradient_of_the_regularised_loss():
    gradient, linear, weights, received = arrays(), arrays(), arrays(), arrays()
    found = dynamic(gradient, linear, weights, received, alpha=0.1)
    for name, g in gradient.items():
        term = slope(lambda w, name=name: loss(w, received[name], 0.1, linear[name]), weights[name])
        np.testing.assert_allclose(found[name], g + term, rtol=1e-6, atol=1e-8)
        after = next_linear(linear, weights, received, alpha=0.1)[name]
        np.testing.assert_allclose(after, linear[name] - 0.1 * (weights[name] - received[name]))


def test_control_is_the_mean_of_the_local_gradients():
    # Option II: after K steps y = x - rate * sum(g_k - own + server), so the next variate is the mean of the g_k.
    received, own, server = arrays(), arrays(), arrays()
    gradients = [arrays() for _ in range(4)]
    weights = received
    for gradient in gradients:
        step = controlled(gradient, own, server)
        weights = {name: weights[name] - 0.05 * step[name] for name in weights}
    after = next_control(own, server, received, weights, steps=4, learning_rate=0.05)
    for name, found in after.items():
        np.testing.assert_allclose(found, np.mean([gradient[name] for gradient in gradients], axis=0), rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_normaliser_counts_gradients_under_momentum(steps, rho):
    # With a gradient of 1 in every step and a rate of 1, the distance is the sum of the weights.
    velocity = distance = 0.0
    for _ in range(steps):
        velocity = rho * velocity + 1
        distance += velocity
    assert normaliser(steps, momentum=rho) == pytest.approx(distance)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
@pytest.mark.parametrize("shrink", [0.01, 0.5])
def test_normaliser_counts_gradients_under_the_proximal_term(steps, shrink):
    distance = 0.0
    for _ in range(steps):
        distance = (1 - shrink) * distance + 1
    assert normaliser(steps, shrink=shrink) == pytest.approx(distance)


def test_dtypes_are_kept_and_nothing_changes():
    given = [arrays(np.float32) for _ in range(4)]
    copies = [{name: array.copy() for name, array in each.items()} for each in given]
    results = [
        proximal(*given[:3], mu=0.1),
        controlled(*given[:3]),
        dynamic(*given, alpha=0.1),
        next_control(*given, steps=2, learning_rate=0.1),
        next_linear(*given[:3], alpha=0.1),
        zeros(given[0]),
    ]
    assert {array.dtype for each in results for array in each.values()} == {np.dtype(np.float32)}
    for each, copy in zip(given, copies, strict=True):
        assert all(np.array_equal(each[name], copy[name]) for name in copy)


@pytest.mark.parametrize(
    "numbers", [{"steps": 0}, {"steps": 2, "momentum": 1}, {"steps": 2, "momentum": 0.5, "shrink": 0.5}]
)
def test_senseless_numbers_are_refused(numbers):
    with pytest.raises(StrategyError, match="steps above 0"):
        normaliser(**numbers)
    with pytest.raises(StrategyError, match="local steps and a rate above 0"):
        next_control({}, {}, {}, {}, steps=0, learning_rate=0.1)


def test_the_proximal_term_of_pytorch_is_the_same():
    torch = pytest.importorskip("torch")
    from umbel.interop.torch import add_proximal  # noqa: PLC0415 - needs PyTorch

    module = torch.nn.Linear(3, 2)
    received = {name: torch.randn_like(tensor) for name, tensor in module.state_dict().items()}
    module(torch.ones(1, 3)).sum().backward()
    gradient = {name: parameter.grad.numpy().copy() for name, parameter in module.named_parameters()}
    weights = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    add_proximal(module, received, mu=0.3)
    expected = proximal(gradient, weights, {name: tensor.numpy() for name, tensor in received.items()}, mu=0.3)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), expected[name], rtol=1e-6)
        assert parameter.detach().numpy().tolist() == weights[name].tolist()
    with pytest.raises(BadName, match="'bias' among those"):
        add_proximal(module, {"weight": received["weight"]}, mu=0.3)
    module.zero_grad()
    add_proximal(module, {}, mu=0.3)
