"""The tree drawn at the top of errors.py is the tree of the classes, and each class is told apart by machines."""

import re
from types import SimpleNamespace

from umbel import errors

_LINE = re.compile(r"^(?P<branch>(?:│   |    |├── |└── )*)(?P<name>[A-Z]\w+) {2,}(?P<text>\S.*)$")
_ALSO = re.compile(r"\(an? (\w+)\)")


def drawn(text: str) -> dict[str, tuple[str, set[str]]]:
    """The parent of each class that a docstring draws, and the built-in errors that it is said to be as well."""
    found: dict[str, tuple[str, set[str]]] = {}
    path: list[str] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and (match["branch"] or not path):
            depth = len(match["branch"]) // 4
            path = [*path[:depth], match["name"]]
            found[match["name"]] = (path[-2] if depth else "", set(_ALSO.findall(match["text"])))
    return found


def real(module: object) -> dict[str, tuple[str, set[str]]]:
    """The same of the classes themselves."""
    found = {}
    for cls in _classes(module):
        ours = [base.__name__ for base in cls.__bases__ if issubclass(base, errors.UmbelError)]
        others = {base.__name__ for base in cls.__bases__ if not issubclass(base, errors.UmbelError)} - {"Exception"}
        found[cls.__name__] = (" and ".join(ours), others)
    return found


def _classes(module: object) -> list[type[errors.UmbelError]]:
    values = vars(module).values()
    return [value for value in values if isinstance(value, type) and issubclass(value, errors.UmbelError)]


def unclear(classes: list[type[errors.UmbelError]]) -> list[str]:
    """Classes without a code, an HTTP status or an exit status that a machine can rely on."""
    codes = [cls.code for cls in classes]
    return [
        cls.__name__
        for cls in classes
        if "code" not in vars(cls)
        or codes.count(cls.code) > 1
        or not re.fullmatch(r"[a-z]+(?:[.-][a-z]+)*", cls.code)
        or not 400 <= cls.http_status <= 599
        or not 1 <= cls.exit_status <= 125
    ]


def test_the_drawn_tree_is_the_real_one():
    assert drawn(errors.__doc__) == real(errors)


def test_each_class_is_told_apart():
    assert unclear(_classes(errors)) == []


def test_every_error_is_public():
    assert set(errors.__all__) == set(real(errors))


def test_every_error_of_umbel_is_in_the_tree():
    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(child) for child in cls.__subclasses__()))

    everywhere = {cls.__name__ for cls in below(errors.UmbelError) if cls.__module__.split(".")[0] == "umbel"}
    assert everywhere == set(real(errors))


TREE = """Errors.

Base        something
├── One     first (a ValueError)
│   └── Two  second
└── Three   third
"""


def test_reads_a_drawn_tree():
    assert drawn(TREE) == {
        "Base": ("", set()),
        "One": ("Base", {"ValueError"}),
        "Two": ("One", set()),
        "Three": ("Base", set()),
    }


def test_finds_a_tree_that_is_not_real():
    class One(errors.UmbelError, ValueError):
        code = "one"

    class Two(errors.UmbelError):
        code = "two"

    got = real(SimpleNamespace(Base=errors.UmbelError, One=One, Two=Two))
    assert got["One"] == ("UmbelError", {"ValueError"})
    assert got["Two"] != drawn(TREE)["Two"]


def test_finds_an_unclear_class():
    class One(errors.UmbelError):
        code = "one"

    class Same(errors.UmbelError):
        code = "one"

    class NoCode(errors.UmbelError):
        pass

    class BadStatus(errors.UmbelError):
        code = "bad-status"
        http_status = 200

    assert unclear([One, Same, NoCode, BadStatus]) == ["One", "Same", "NoCode", "BadStatus"]
