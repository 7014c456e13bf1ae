"""Six real sites of the RAND Health Insurance Experiment: fairness between them, and trees."""

import runpy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _peers import PeerUnavailable
from numpy.typing import NDArray

import umbel
from umbel import queries
from umbel import strategy as named
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import Strategy

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "rand_health" / "app.py"
Site = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


@cache
def sites() -> tuple[tuple[Site, ...], Any]:
    """Return what each site trains and tests with, standardised over all of them, and what areas are measured with."""
    example = runpy.run_path(str(EXAMPLE))
    raw = [example["read_site"](number) for number in example["SITES"]]
    parts = [queries.moments(X) for X, *_ in raw]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    standard = tuple((queries.standardised(X, total), y, queries.standardised(Z, total), z) for X, y, Z, z in raw)
    return standard, example["area_under_curve"]


def probability(model: dict[str, NDArray[Any]], X: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1 / (1 + np.exp(-(X @ model["w"] + model["b"]))))


def site_loss(model: dict[str, NDArray[Any]], X: NDArray[Any], y: NDArray[Any]) -> float:
    p = np.clip(probability(model, X), 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(y, np.log(p), np.log(1 - p))))


def logistic() -> ClientApp:
    """Five steps of gradient descent a round, on all rows of the site."""
    made = ClientApp()

    @made.train()
    def train(message: Any, context: Any) -> Any:
        X, y, _, _ = sites()[0][context.node_config["partition-id"]]
        model = message.content.parameters_records["model"].to_numpy()
        before = site_loss(model, X, y)
        for _ in range(5):
            error = probability(model, X) - y
            model = {"w": model["w"] - 0.3 * (error @ X) / len(y), "b": model["b"] - 0.3 * error.mean()}
        metrics = MetricsRecord({"num-examples": len(y), "loss-before": before})
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))

    return made


def trained(strategy: Strategy, rounds: int) -> dict[str, NDArray[Any]]:
    first = {"w": np.zeros(sites()[0][0][0].shape[1]), "b": np.zeros(1)}
    return umbel.simulate(logistic(), strategy, first, nodes=6, rounds=rounds).model.to_numpy()


def worst_site(strategy: Strategy, rounds: int) -> float:
    """Return minus the highest loss of a site, times 1,000."""
    model = trained(strategy, rounds)
    return -1000 * max(site_loss(model, X, y) for X, y, _, _ in sites()[0])


def fair_sites(seed: int) -> tuple[float, float]:
    del seed  # nothing here is drawn
    fair = named.qfedavg(q=5.0, learning_rate=0.3, evaluate_fraction=0)
    return worst_site(fair, 400), worst_site(named.fedavg(evaluate_fraction=0), 400)


def area(scores: list[NDArray[Any]]) -> float:
    """Return the mean over sites of the area under the curve, in per cent."""
    standard, under = sites()
    return 100 * float(np.mean([under(z, score) for (_, _, _, z), score in zip(standard, scores, strict=True)]))


def grown(strategy: Strategy, rounds: int, seed: int, *, whole: bool = False) -> tuple[float, float]:
    """Trees and a logistic regression, both federated. Raises ``PeerUnavailable`` where XGBoost is not installed."""
    try:
        import xgboost  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PeerUnavailable("the extra xgboost is not installed") from error

    from umbel.interop.xgboost import first, grow, to_booster  # noqa: PLC0415 - likewise

    standard, _ = sites()
    params = {
        "objective": "binary:logistic",
        "max_depth": 2,
        "eta": 0.05,
        "base_score": 0.5,
        "nthread": 1,
        "seed": seed,
    }
    data = [xgboost.DMatrix(X, label=y) for X, y, _, _ in standard]
    app = ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        node, more = context.node_config["partition-id"], message.content.configs_records["config"]["local-rounds"]
        trees = grow(params, data[node], message.content.parameters_records["model"], rounds=more, whole=whole)
        return message.create_reply(RecordSet({"model": trees}, {"metrics": MetricsRecord({"num-examples": 1})}))

    begin = first(params, standard[0][0].shape[1])
    booster = to_booster(umbel.simulate(app, strategy, begin, nodes=6, rounds=rounds, seed=seed).model)
    plain = trained(named.fedavg(evaluate_fraction=0), 100)
    return (
        area([booster.predict(xgboost.DMatrix(Z)) for _, _, Z, _ in standard]),
        area([probability(plain, Z) for _, _, Z, _ in standard]),
    )


def trees(seed: int) -> tuple[float, float]:
    """Six trees a round."""
    return grown(named.fedxgb_bagging(evaluate_fraction=0), 20, seed)


def passed_on(seed: int) -> tuple[float, float]:
    """As many trees: each node is asked four times for five of them."""
    return grown(named.fedxgb_cyclic(local_rounds=5, evaluate_fraction=0), 24, seed, whole=True)
