"""Six sites of the RAND Health Insurance Experiment learn one model together; no row leaves a site.

Who will have a medical expense this year? The sites first answer a query with sums and counts, from which every site
standardises its features alike; then they train a logistic regression together, each on its own people.
"""

from functools import cache
from importlib.resources import files
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.app import ClientApp
from umbel.context import Context
from umbel.message import Message
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

Vector: TypeAlias = NDArray[np.float64]
Model: TypeAlias = dict[str, Vector]

SITES = range(1, 7)
FEATURES = (
    *("coins", "idp", "lpi", "fmde", "time"),  # the insurance plan, and for how much of the year it held
    *("physlm", "disea", "hlthg", "hlthf", "hlthp", "mhi", "xghindx"),  # health at the start
    *("income", "num", "educdec", "xage", "female", "child", "black"),  # the person and the family
)

app = ClientApp()


@cache
def read_table() -> NDArray[np.void]:
    path = str(files("statsmodels.datasets.randhie").joinpath("src/randhie.csv"))
    return np.genfromtxt(path, delimiter=",", names=True, usecols=("site", "zper", "meddol", *FEATURES))


@cache
def read_site(number: int) -> tuple[Vector, NDArray[np.bool_], Vector, NDArray[np.bool_]]:
    """Return one site's features and expenses to train on, and those to test with."""
    table = read_table()[read_table()["site"] == number]
    X = np.column_stack([table[name] for name in FEATURES])
    complete = np.isfinite(X).all(axis=1)
    X, y, test = X[complete], table["meddol"][complete] > 0, held_out(table["zper"][complete], number)
    return X[~test], y[~test], X[test], y[test]


def held_out(person: Vector, seed: int) -> NDArray[np.bool_]:
    """Return which rows are for testing: those of every fifth person, in all years."""
    return np.isin(person, np.random.default_rng(seed).permutation(np.unique(person))[::5])


def summarise(X: Vector) -> dict[str, Vector]:
    return {"sum": X.sum(axis=0), "squares": (X * X).sum(axis=0), "count": np.array([float(len(X))])}


def standardise(X: Vector, total: dict[str, Vector]) -> Vector:
    mean, square = total["sum"] / total["count"], total["squares"] / total["count"]
    return (X - mean) / np.sqrt(np.maximum(square - mean**2, 1e-9))


def predict(model: Model, X: Vector) -> Vector:
    """Return the probability of an expense."""
    return 1 / (1 + np.exp(-(X @ model["weights"] + model["bias"])))


def fit(model: Model, X: Vector, y: NDArray[np.bool_], epochs: int, rate: float, seed: int) -> Model:
    """Return ``model`` after stochastic gradient descent on the logistic loss, some 32 rows at a time."""
    weights, bias, rng = model["weights"].copy(), model["bias"].copy(), np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(y)), len(y) // 32 + 1):
            error = predict({"weights": weights, "bias": bias}, X[rows]) - y[rows]
            weights -= rate * (error @ X[rows]) / len(rows)
            bias -= rate * error.mean()
    return {"weights": weights, "bias": bias}


def area_under_curve(y: NDArray[np.bool_], score: Vector) -> float:
    """Return how often somebody with an expense is ranked above somebody without one; a tie counts half."""
    _, place, ties = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(ties) - (ties - 1) / 2)[place]
    return float((rank[y].sum() - y.sum() * (y.sum() + 1) / 2) / (y.sum() * (~y).sum()))


def received(message: Message, name: str) -> dict[str, Vector]:
    return message.content.parameters_records[name].to_numpy()


@app.query()
def statistics(message: Message, context: Context) -> Message:
    total = summarise(read_site(int(context.node_config["site"]))[0])
    return message.create_reply(RecordSet({"statistics": ParametersRecord.from_numpy(total)}))


@app.train()
def train(message: Message, context: Context) -> Message:
    rows, y, _, _ = read_site(int(context.node_config["site"]))
    X = standardise(rows, received(message, "statistics"))
    epochs, rate = int(context.run_config["local-epochs"]), float(context.run_config["learning-rate"])
    model = fit(received(message, "model"), X, y, epochs, rate, context.seed)
    loss = -np.log(np.where(y, predict(model, X), 1 - predict(model, X))).mean()
    metrics = MetricsRecord({"num-examples": len(y), "loss": float(loss)})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    _, _, X, y = read_site(int(context.node_config["site"]))
    score = predict(received(message, "model"), standardise(X, received(message, "statistics")))
    metrics = MetricsRecord({"num-examples": len(y), "auc": area_under_curve(y, score)})
    return message.create_reply(RecordSet(metrics_records={"metrics": metrics}))


def nodes(_config: dict[str, object]) -> dict[str, dict[str, int]]:
    return {f"site-{number}": {"site": number} for number in SITES}


def initial(_config: dict[str, object]) -> Model:
    return {"weights": np.zeros(len(FEATURES)), "bias": np.zeros(1)}
