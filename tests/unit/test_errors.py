"""The errors themselves, and the page that lists them."""

import copy
import pickle
import re
from pathlib import Path

import pytest

from umbel import errors
from umbel.errors import RecordError, RecordTypeError, Truncated, UmbelError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
CLASSES = [getattr(errors, name) for name in errors.__all__]
ROW = re.compile(r"^\| `(\w+)` \| `([\w.-]+)` \| (\d+) \| (\d+) \| (.+) \|$", re.MULTILINE)


DRAWN = re.compile(r"^[│├└─ ]*([A-Z]\w+) {2,}", re.MULTILINE)


def test_the_page_lists_every_class_with_its_numbers_in_the_order_of_the_tree():
    rows = [match.groups()[:4] for match in ROW.finditer(PAGE.read_text())]
    expected = [
        (name, kind.code, str(kind.http_status), str(kind.exit_status))
        for name in DRAWN.findall(errors.__doc__)
        for kind in [getattr(errors, name)]
    ]
    assert rows == expected


def test_the_page_says_of_each_what_to_do():
    assert [match[1] for match in ROW.finditer(PAGE.read_text()) if len(match[5].split()) < 3] == []


@pytest.mark.parametrize("kind", CLASSES)
def test_each_crosses_processes_with_its_message_and_place(kind):
    for twin in (pickle.loads(pickle.dumps(kind("wrong", at="here"))), copy.copy(kind("wrong", at="here"))):
        assert (type(twin), twin.message, twin.at, str(twin)) == (kind, "wrong", "here", "wrong - at here")


def test_a_message_without_a_place_is_the_message():
    assert str(Truncated("wrong")) == "wrong"


@pytest.mark.parametrize("kind", CLASSES)
def test_codes_follow_the_tree(kind):
    parents = [parent for parent in kind.__mro__[1:] if issubclass(parent, UmbelError) and parent is not UmbelError]
    assert re.fullmatch(r"[a-z]+([.-][a-z]+)*", kind.code)
    if parents:
        assert kind.code.startswith(parents[-1].code.split(".")[0])
    assert kind.http_status in range(400, 600)
    assert kind.exit_status in range(1, 126)


def test_codes_are_unique():
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)


def test_errors_are_the_usual_ones_of_python_too():
    assert issubclass(RecordError, ValueError)
    assert issubclass(RecordTypeError, TypeError)
    assert not issubclass(RecordTypeError, ValueError)
    assert issubclass(errors.MissingExtra, ImportError)
    assert issubclass(errors.MessageError, ValueError)
