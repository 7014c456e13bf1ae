"""Ensembles of trees as XGBoost writes them in JSON: opaque bytes on the way, looked through here before they count.

A record of trees has one array, "trees", of uint8. What nodes send is read as data and checked: that arrays of a tree
have one length, that every node is reached from the root once, that features exist and numbers are finite. So nothing
that a node made up reaches the parser or the predictor of another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from umbel.aggregation._aggregator import Aggregator
from umbel.aggregation._cohort import CohortFold
from umbel.aggregation._update import Update, uniform
from umbel.errors import AggregationError, StrategyError, UpdateRejected
from umbel.records import ParametersRecord

_Json: TypeAlias = Mapping[str, Any]

_NAME: Final = "trees"
_AT: Final = "parameters_records.model['trees']"
_INTEGERS: Final = ("left_children", "right_children", "parents", "split_indices", "split_type", "default_left")
_NUMBERS: Final = ("split_conditions", "base_weights", "loss_changes", "sum_hessian")
_LEAF: Final = -1
_PLAIN: Final = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


def bagged_trees(*, most: int = 100, rounds: int | None = None) -> Aggregator:
    """Return the ensemble with the new trees of all updates behind it, in the order of node names.

    A node replies with the trees that it grew, and with no others. Every tree was grown as if the others of its round
    were not there, so the learning rate of the nodes is divided by about their number.

    Args:
        most: how many trees a node may add in a round, at least 1.
        rounds: how often a node may boost in a round, in place of ``most``: each time it adds a tree, or as many as the
            model has classes, or is told to grow at once.

    Raises:
        StrategyError: for a number below 1.

    """
    name, limit = _limit(most, rounds)
    measures = {_NAME: partial(_count_new, limit)}
    return Aggregator(f"bagged_trees({name})", uniform, CohortFold(_bagged), measures, opaque=(_NAME,))


def last_trees(*, most: int = 100, rounds: int | None = None) -> Aggregator:
    """Return the ensemble of the one update of a round, which has the trees that were sent, and some new ones.

    Args:
        most: how many trees a node may add in a round, at least 1.
        rounds: as in ``bagged_trees``.

    Raises:
        StrategyError: for a number below 1.

    """
    name, limit = _limit(most, rounds)
    measures = {_NAME: partial(_count_added, limit)}
    return Aggregator(f"last_trees({name})", uniform, CohortFold(_last), measures, most=1, opaque=(_NAME,))


def _limit(most: int, rounds: int | None) -> tuple[str, "_Limit"]:
    """Return how many trees are too many, given the model, and what that is called."""
    for name, value in (("most", most), ("rounds", 1 if rounds is None else rounds)):
        if type(value) is not int or value < 1:
            what = "trees" if name == "most" else "rounds of boosting"
            raise StrategyError(f"expected a number of {what}, at least 1, got {value!r}", at=name)
    return (f"most={most}", lambda _: most) if rounds is None else (f"rounds={rounds}", partial(_grown, rounds))


@dataclass(frozen=True)
class _Ensemble:
    """An ensemble that was read: the whole JSON, and the part with the trees."""

    whole: _Json
    model: _Json

    @property
    def trees(self) -> list[Any]:
        trees: list[Any] = self.model["trees"]
        return trees

    @property
    def kind(self) -> tuple[Any, ...]:
        """What two ensembles must have in common for their trees to go together.

        How far and how deep trees were grown, the learning rate and the depth, is written nowhere in them.
        """
        learner = self.whole["learner"]
        return (
            learner["learner_model_param"],
            learner["objective"],
            self.model["gbtree_model_param"]["num_parallel_tree"],
        )


_Limit: TypeAlias = Callable[[_Ensemble], int]


def _grown(rounds: int, ours: _Ensemble) -> int:
    """Return how many trees so many rounds of boosting grow."""
    learner = ours.whole["learner"]["learner_model_param"]
    outputs = max(1, int(learner["num_class"]), int(learner.get("num_target", 1)))
    return rounds * outputs * int(ours.model["gbtree_model_param"]["num_parallel_tree"])


def _count_new(limit: _Limit, update: Update, model: ParametersRecord) -> float:
    found, ours = _checked(update.record), _read(model)
    _require_kind(found, ours)
    _require_most(len(found.trees), limit(ours))
    return float(len(found.trees))


def _count_added(limit: _Limit, update: Update, model: ParametersRecord) -> float:
    ours = _read(model)
    found = _checked(update.record, ours.trees)
    _require_kind(found, ours)
    count = len(ours.trees)
    if found.trees[:count] != ours.trees or found.model["tree_info"][:count] != ours.model["tree_info"]:
        raise UpdateRejected(f"expected an ensemble that begins with the {count} trees that were sent", at=_AT)
    _require_most(len(found.trees) - count, limit(ours))
    return float(len(found.trees) - count)


def _require_kind(found: _Ensemble, ours: _Ensemble) -> None:
    if found.kind != ours.kind:
        raise UpdateRejected(
            f"expected trees of the kind {_brief(ours.kind)}, got {_brief(found.kind)}: begin with first(...) of "
            "umbel.interop.xgboost, and train with its parameters",
            at=_AT,
        )


def _require_most(count: int, most: int) -> None:
    if not 0 < count <= most:
        raise UpdateRejected(
            f"expected 1 to {most} new trees, got {count}: boost as often as the config says, and reply as the "
            "strategy wants it, with the new trees alone or whole=True",
            at=_AT,
        )


def _bagged(template: ParametersRecord, updates: list[Update]) -> ParametersRecord:
    whole = _read(template)
    trees, info, ends = list(whole.trees), list(whole.model["tree_info"]), list(whole.model["iteration_indptr"]) or [0]
    for update in updates:
        found = _read(update.record)
        ends += [ends[-1] + end for end in found.model["iteration_indptr"][1:]]
        trees += found.trees
        info += found.model["tree_info"]
    numbered = [{**tree, "id": number} for number, tree in enumerate(trees)]
    count = {**whole.model["gbtree_model_param"], "num_trees": str(len(trees))}
    model = {**whole.model, "gbtree_model_param": count, "iteration_indptr": ends, "tree_info": info, "trees": numbered}
    learner = whole.whole["learner"]
    booster = {**learner["gradient_booster"], "model": model}
    return _record({**whole.whole, "learner": {**learner, "gradient_booster": booster}})


def _last(template: ParametersRecord, updates: list[Update]) -> ParametersRecord:
    del template
    if len(updates) != 1:
        raise AggregationError(f"expected the one update of a round that goes from node to node, got {len(updates)}")
    return _record(_read(updates[0].record).whole)


def _record(whole: _Json) -> ParametersRecord:
    return ParametersRecord.from_numpy({_NAME: np.frombuffer(msgspec.json.encode(whole), np.uint8)})


def _read(record: ParametersRecord) -> _Ensemble:
    """Return an ensemble that was checked before, or that is the run's own."""
    try:
        whole = msgspec.json.decode(record[_NAME].numpy(copy=False).tobytes())
        model = whole["learner"]["gradient_booster"]["model"]
        return _Ensemble(whole, model)
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
        raise AggregationError(
            "expected an ensemble of trees in XGBoost's JSON, got something else: begin the run with first(...) of "
            "umbel.interop.xgboost",
            at=_AT,
        ) from error


def _checked(record: ParametersRecord, known: Sequence[_Json] = ()) -> _Ensemble:
    """Return an ensemble that a node sent, or raise ``UpdateRejected``; trees that are ``known`` are good."""
    try:
        ensemble = _read(record)
        features = int(ensemble.whole["learner"]["learner_model_param"]["num_feature"])
        problem = _fault(ensemble, features, known)
    except AggregationError as error:
        raise UpdateRejected(error.message, at=_AT) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UpdateRejected(
            f"expected trees in XGBoost's JSON, got {type(error).__name__}: {error!s:.80}", at=_AT
        ) from error
    if problem:
        raise UpdateRejected(f"expected trees that can be walked, got {problem}", at=_AT)
    return ensemble


def _fault(ensemble: _Ensemble, features: int, known: Sequence[_Json]) -> str:
    model, count = ensemble.model, len(ensemble.trees)
    ends = model["iteration_indptr"]
    if ensemble.whole["learner"]["gradient_booster"]["name"] != "gbtree":
        return "a booster other than gbtree"
    if not _are_integers(ends) or ends[:1] != [0] or ends[-1] != count or sorted(ends) != ends:
        return "iterations that do not add up"
    if not _are_integers(model["tree_info"]) or len(model["tree_info"]) != count:
        return f"{len(model['tree_info'])} classes of {count} trees"
    groups = max(1, int(ensemble.whole["learner"]["learner_model_param"]["num_class"]))
    if not all(0 <= group < groups for group in model["tree_info"]):
        return "a class that there is not"
    trees = ensemble.trees
    # To Python, 1 is 1.0 and True; to XGBoost it is not.
    first, encode = trees[: len(known)], msgspec.json.encode
    new = trees[len(known) :] if encode(first) == encode(known) else trees
    return next(filter(None, (_fault_of(tree, features) for tree in new)), "")


def _fault_of(tree: _Json, features: int) -> str:
    size = int(tree["tree_param"]["num_nodes"])
    columns = {name: tree[name] for name in (*_INTEGERS, *_NUMBERS)}
    if size < 1 or any(len(column) != size for column in columns.values()):
        return "arrays of different lengths in a tree"
    if not all(_are_integers(columns[name]) for name in _INTEGERS):
        return "something else than whole numbers in a tree"
    if not all(type(value) in (int, float) and isfinite(value) for name in _NUMBERS for value in columns[name]):
        return "something else than finite numbers in a tree"
    if any(tree[name] for name in _PLAIN) or any(columns["split_type"]):
        return "splits by category, which are not supported"
    if not all(0 <= feature < features for feature in columns["split_indices"]):
        return f"a split by a feature that is none of {features}"
    return "" if _is_tree(columns["left_children"], columns["right_children"]) else "nodes that make no tree"


def _are_integers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and abs(value) < 2**31 for value in values)


def _is_tree(left: list[int], right: list[int]) -> bool:
    """Say whether a walk from the root comes to each node at most once, and ends."""
    seen, left_to_do = {0}, [0]
    while left_to_do:
        place = left_to_do.pop()
        children = [left[place], right[place]]
        if children == [_LEAF, _LEAF]:
            continue
        for child in children:
            if not 0 < child < len(left) or child in seen:
                return False
            seen.add(child)
            left_to_do.append(child)
    return True


def _brief(kind: object) -> str:
    return f"{kind!r:.200}"
