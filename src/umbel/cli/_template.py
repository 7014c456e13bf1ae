"""The files that ``umbel new`` writes, by name; ``$name`` stands for the name of the app."""

PYPROJECT = """\
[project]
name = "$name"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["umbel"]

[tool.umbel]
client = "app:app"            # what a node does with a message
initial = "app:initial"       # the model that training starts from
nodes = "app:nodes"           # who takes part; a number or a list of names will do as well
evaluate = "app:measure"      # optional: what the server measures after every round
report = "app:report"         # optional: what to print when the run is over
strategy = { name = "fedavg" }
rounds = 20
seed = 7

[tool.umbel.config]           # reaches every node; umbel run $name --set epochs=5
epochs = 3
learning-rate = 1.0
sites = 10
"""

APP = '''\
"""$name: ten sites learn one boundary between two classes; no site has seen more than a tenth of it."""

import numpy as np

from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


def moons(count, seed):
    """Return points of two interleaved half circles, their classes 0 and 1, and where on its arc each point lies."""
    rng = np.random.default_rng(seed)
    angle, label = rng.uniform(0, np.pi, count), rng.integers(0, 2, count)
    x = np.where(label, 1 - np.cos(angle), np.cos(angle))
    y = np.where(label, 0.5 - np.sin(angle), np.sin(angle))
    points = np.stack([x, y], axis=1) + rng.normal(0, 0.12, (count, 2))
    return points.astype("float32"), label.astype("float32"), angle


def own_data(site, sites):
    """Return the points of one site: a slice of both arcs. Replace this by reading the site's own files."""
    points, labels, angle = moons(2000, seed=1)
    mine = np.array_split(np.argsort(angle), sites)[site]
    return points[mine], labels[mine]


def nodes(config):
    """Return who takes part: a name, and what only that node is told."""
    return {f"site-{i:02d}": {"site": i} for i in range(config["sites"])}


def initial(config):
    """Return the model that training starts from: one hidden layer of 32 units."""
    rng = np.random.default_rng(0)
    return {
        "hidden.weight": rng.normal(0, 2, (2, 32)).astype("float32"),
        "hidden.bias": rng.normal(0, 1, 32).astype("float32"),
        "out.weight": np.zeros(32, "float32"),
        "out.bias": np.zeros(1, "float32"),
    }


def predict(model, points):
    """Return the hidden layer and the probability of class 1."""
    hidden = np.tanh(points @ model["hidden.weight"] + model["hidden.bias"])
    return hidden, 1 / (1 + np.exp(-(hidden @ model["out.weight"] + model["out.bias"])))


def fit(model, points, labels, epochs, rate, rng):
    """Train ``model`` in place by stochastic gradient descent and return the loss of the last epoch."""
    for _ in range(epochs):
        losses = []
        for batch in np.array_split(rng.permutation(len(labels)), max(1, len(labels) // 20)):
            hidden, p = predict(model, points[batch])
            error = (p - labels[batch]) / len(batch)
            back = np.outer(error, model["out.weight"]) * (1 - hidden**2)
            model["out.weight"] -= rate * (hidden.T @ error)
            model["out.bias"] -= rate * error.sum()
            model["hidden.weight"] -= rate * (points[batch].T @ back)
            model["hidden.bias"] -= rate * back.sum(axis=0)
            losses.append(-np.log(np.where(labels[batch] == 1, p, 1 - p) + 1e-7).mean())
    return float(np.mean(losses))


@app.train()
def train(message, context):
    """Train the model that came with the message on this site's points and send it back."""
    config = context.run_config
    points, labels = own_data(context.node_config["site"], config["sites"])
    model = message.content.parameters_records["model"].to_numpy()
    rng = np.random.default_rng(context.seed)  # the same draw wherever and whenever this runs
    loss = fit(model, points, labels, config["epochs"], config["learning-rate"], rng)
    metrics = MetricsRecord({"num-examples": len(labels), "loss": loss})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))


def accuracy(model):
    """Return the share of 1,000 new points, from everywhere on both arcs, that ``model`` gets right."""
    points, labels, _ = moons(1000, seed=2)
    return float(((predict(model, points)[1] > 0.5) == (labels == 1)).mean())


def measure(round, model):
    """Return the server's own metrics after a round."""
    return {"accuracy": accuracy(model.to_numpy())}


def report(history, config):
    """Return what to print at the end: what each site would have learned alone, with the same number of epochs."""
    alone, epochs = [], len(history.rounds) * config["epochs"]
    for site in range(config["sites"]):
        model, rng = initial(config), np.random.default_rng(site)
        fit(model, *own_data(site, config["sites"]), epochs, config["learning-rate"], rng)
        alone.append(accuracy(model))
    together = accuracy(history.model.to_numpy())
    return (
        f"Accuracy on points from everywhere: {min(alone):.0%} to {max(alone):.0%} for a site that learns alone,\\n"
        f"{together:.0%} for the model they trained together. No point left its site."
    )
'''

README = """\
# $name

    umbel run .                          train; results land in runs/<id>/
    umbel run . --rounds 40              for longer
    umbel run . --set learning-rate=0.5  with another setting
    umbel inspect runs/<id> --stats      look into the model
    umbel diff runs/<id> runs/<other>    compare two runs

`app.py` holds the whole app: what a node does (`train`), who takes part (`nodes`), where training starts (`initial`)
and what the server measures (`measure`). Put your own data into `own_data` and your own model into `fit`.
`pyproject.toml` names these functions and sets rounds, seed and settings under `[tool.umbel]`.
"""

FILES = {"pyproject.toml": PYPROJECT, "app.py": APP, "README.md": README}
