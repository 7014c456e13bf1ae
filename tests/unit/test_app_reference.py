"""Where another process finds an app: in the module that made it, not in one that merely imported it."""

import sys
from types import ModuleType

import pytest

from umbel.app import ClientApp
from umbel.engines._reference import reference_of

SOURCE = """
from umbel.app import ClientApp

def through(message, context, call_next):
    return call_next(message, context)

app = ClientApp(mods=[through] if MODS else ())

@app.train()
def train(message, context):
    return message.create_reply(message.content)
"""


@pytest.fixture
def module(monkeypatch):
    def make(name, **names):
        made = ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


@pytest.mark.parametrize("mods", [False, True])
def test_a_module_that_imports_the_app_later_is_not_taken_for_its_own(module, mods):
    home = module("site_home", MODS=mods)
    exec(SOURCE, vars(home))
    module("site_later", app=home.app)
    assert str(reference_of(home.app)) == "site_home:app"


def test_an_app_without_handlers_is_where_others_import_it_from(module):
    app = ClientApp()
    module("site_first", app=app)
    module("site_second", app=app)
    assert str(reference_of(app)) == "site_second:app"
