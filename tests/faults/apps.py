"""Apps with a main of their own in a folder, and what a run of one prints."""

import re


def write_main_app(tmp_path, settings, code):
    """Write an app that notes in the file "trained" of ``tmp_path`` who trained."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(settings.replace('"trained"', f'"{tmp_path / "trained"}"'))
    (folder / "app.py").write_text(code)
    return folder


def digest_of(result):
    """The digest that a process has printed, which ended well."""
    assert result.returncode == 0, result.stdout + result.stderr
    return re.search(r"^digest   (\S+)$", result.stdout, re.MULTILINE)[1]
