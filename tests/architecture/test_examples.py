"""Everything that a strategy can be put together from by name has an example in the documentation, and it runs."""

import ast
import doctest
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import umbel.strategy as named
from house import ROOT
from test_documentation import pages
from umbel import aggregation, optimizers, transforms

OURS = "umbel.strategy"
# A block that is left out whatever is installed; "next if(...)" leaves it to the machine.
_BLOCK = re.compile(
    r'(?P<left_out><!-- skip: next "[^"]*" -->\s*)?^```python\n(?P<body>.*?)^```$', re.MULTILINE | re.DOTALL
)


def blocks(text: str) -> Iterator[str]:
    """The Python of a page that runs, without prompts and what is printed."""
    for match in _BLOCK.finditer(text):
        if match["left_out"] is None:
            examples = doctest.DocTestParser().get_examples(match["body"])
            yield "".join(each.source for each in examples) if examples else match["body"]


def called(text: str) -> set[str]:
    """The names of umbel.strategy that the blocks of a page call, under whatever name they have imported them."""
    tree = ast.parse("\n".join(blocks(text)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = {
        n.asname or n.name for node in imports if node.module == "umbel" for n in node.names if n.name == "strategy"
    }
    names = {n.asname or n.name: n.name for node in imports if node.module == OURS for n in node.names}
    found = set()
    for call in (node.func for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call, ast.Name):
            found.add(names.get(call.id))
        elif isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id in modules:
            found.add(call.attr)
    return found - {None}


def makers(kind: type, module: ModuleType = named) -> set[str]:
    """The public functions of a module that return such a value."""
    functions = {name: made for name in module.__all__ if inspect.isfunction(made := getattr(module, name))}
    return {name for name, made in functions.items() if inspect.signature(made).return_annotation is kind}


def test_every_strategy_selector_and_policy_has_an_example_that_runs():
    wanted = {*named.catalogue(), *makers(named.Selector), *makers(named.Policy)}
    assert wanted - set.union(*(called(page.read_text()) for page in pages())) == set()


PARTS = (
    (named.Selector, named),
    (named.Policy, named),
    (transforms.Transform, transforms),
    (aggregation.Aggregator, aggregation),
    (optimizers.Optimizer, optimizers),
)


@pytest.mark.parametrize(("kind", "module"), PARTS, ids=[kind.__name__ for kind, _ in PARTS])
def test_every_part_is_in_the_tables_of_parts(kind: type, module: ModuleType):
    section = (ROOT / "docs" / "strategies.md").read_text().partition("## Parts")[2].partition("```")[0]
    found = makers(kind, module)
    assert found
    assert {name for name in found if not re.search(rf"`{name}\b", section)} == set()


def test_finds_selectors_and_policies():
    assert makers(named.Selector) >= {"everyone", "fraction", "oort", "during"}
    assert makers(named.Policy) >= {"synchronous", "quorum"}


PAGE = """
```python
from umbel import strategy as s
from umbel.strategy import krum, fedavg as mean, fedprox
import numpy as np
```

`s.fednova()` in a sentence, and `fedprox` in a list:

```python
>>> krum(byzantine=1).name
'krum'

```

<!-- skip: next "needs two machines" -->
```python
s.scaffold()
```

<!-- skip: next if(not installed("xgboost"), reason="needs the extra xgboost") -->
```python
for each in (s.fedadam(), mean(), np.histogram([]), fedprox):
    s.fedyogi
```

```toml
strategy = { name = "fedavgm" }
```
"""


def test_a_name_counts_where_it_is_called():
    assert called(PAGE) == {"krum", "fedadam", "fedavg"}
