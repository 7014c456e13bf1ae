"""What was learned without pooling: the federated model beside six models trained alone and one trained on all rows.

Only this comparison reads the rows of more than one site; a real federation could not make it.
"""

from typing import NamedTuple

import numpy as np
from app import SITES, Model, area_under_curve, fit, initial, predict, read_site, standardise, summarise

from umbel.history import History


class Row(NamedTuple):
    """Areas under the ROC curve on the test people of one site, and of its own model on those of all six sites."""

    site: str
    tested: int
    alone: float
    federated: float
    pooled: float
    alone_everywhere: float


def compare(model: Model, epochs: int, rate: float) -> tuple[list[Row], float, float]:
    """Return a row for each site, and the areas of the federated and the pooled model on the people of all six.

    Every model has made ``epochs`` epochs over its rows, so that none has had more training than another.
    """
    X, y, X_test, y_test = (np.concatenate(parts) for parts in zip(*map(read_site, SITES), strict=True))
    total, place = summarise(X), np.repeat(SITES, [len(read_site(number)[3]) for number in SITES])
    federated = predict(model, standardise(X_test, total))
    pooled = predict(fit(initial({}), standardise(X, total), y, epochs, rate, seed=0), standardise(X_test, total))
    rows = []
    for number in SITES:
        own_X, own_y, _, _ = read_site(number)
        own, here = summarise(own_X), place == number
        alone = predict(
            fit(initial({}), standardise(own_X, own), own_y, epochs, rate, number), standardise(X_test, own)
        )
        at_home = [area_under_curve(y_test[here], score[here]) for score in (alone, federated, pooled)]
        rows.append(Row(f"site-{number}", int(here.sum()), *at_home, area_under_curve(y_test, alone)))
    return rows, area_under_curve(y_test, federated), area_under_curve(y_test, pooled)


def line(label: str, tested: int, *areas: float) -> str:
    return f"  {label:<20} {tested:>12,}  " + "  ".join(f"{area:>10.3f}" for area in areas)


def report(history: History, config: dict[str, float]) -> str:
    epochs = len(history.rounds) * int(config["local-epochs"])
    rows, federated, pooled = compare(history.model.to_numpy(), epochs, config["learning-rate"])
    tested = sum(row.tested for row in rows)
    home = np.mean([row[2:5] for row in rows], axis=0)
    alone, lowest = (reduce([row.alone_everywhere for row in rows]) for reduce in (np.mean, np.min))
    lines = [
        "Who will have a medical expense? Area under the ROC curve on people whom no model has seen:",
        "",
        f"  {'tested on':<20} {'person-years':>12}  {'alone':>10}  {'federated':>10}  {'pooled':>10}",
        *(line(row.site, *row[1:5]) for row in rows),
        line("mean of the sites", tested, *home),
        line("all people together", tested, alone, federated, pooled) + "   (alone: mean of the six models)",
        "",
        f"No row left its site, and the federated model ranks the people of all six with {federated:.3f};",
        f"pooling every row gives {pooled:.3f}. A site that learns alone reaches {alone:.3f} there on average and",
        f"{lowest:.3f} at worst; at home, {home[0]:.3f}, where the federated model has {home[1]:.3f}.",
    ]
    return "\n".join(lines)
