"""Everything that a strategy can be put together from by name has an example in the documentation, and it runs."""

import ast
import doctest
import inspect
import re
from collections.abc import Iterator

import umbel.strategy as named
from test_documentation import pages

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


def makers(kind: type) -> set[str]:
    """The public functions of umbel.strategy that return such a value."""
    functions = {name: made for name in named.__all__ if inspect.isfunction(made := getattr(named, name))}
    return {name for name, made in functions.items() if inspect.signature(made).return_annotation is kind}


def test_every_strategy_selector_and_policy_has_an_example_that_runs():
    wanted = {*named.catalogue(), *makers(named.Selector), *makers(named.Policy)}
    assert wanted - set.union(*(called(page.read_text()) for page in pages())) == set()


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
