"""Recipes: what is refused, and what makes a layer another one."""

import pytest

from spriggan.errors import InvalidValue
from spriggan.image.recipe import Recipe

HEAD = 'user = "u"\nshell = "/bin/sh"\n'


def write(directory, text, **files):
    (directory / "recipe.toml").write_text(text)
    for name, content in files.items():
        (directory / name).mkdir(exist_ok=True)
        (directory / name / "hook.sh").write_text(content)
    return directory


def test_the_default_recipe_is_complete():
    recipe = Recipe.load()
    assert [stage.name for stage in recipe.stages] == ["base", "system", "languages"]
    assert recipe.user == "sprite"
    assert recipe.shell == "/bin/zsh"
    assert recipe.environment["PATH"].startswith("/.sprite/bin:")
    assert recipe.uses_packages


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not toml",
        HEAD,
        HEAD + "stage = 3",
        HEAD + "stage = [3]",
        HEAD + "[[stage]]",
        HEAD + '[[stage]]\nname = "a"\npackage = ["zsh"]',
        HEAD + '[[stage]]\nname = "../a"',
        HEAD + '[[stage]]\nname = "a"\n[[stage]]\nname = "a"',
        HEAD + '[[stage]]\nname = "a"\n[[stage]]\nname = "b"\nbootstrap = true',
    ],
)
def test_bad_recipes(tmp_path, text):
    with pytest.raises(InvalidValue):
        Recipe.load(write(tmp_path, text))


def test_no_recipe(tmp_path):
    with pytest.raises(InvalidValue, match=r"recipe\.toml"):
        Recipe.load(tmp_path)


def test_a_key_changes_with_what_goes_in(tmp_path):
    text = HEAD + '[[stage]]\nname = "a"'

    def key(below="", packages=None, sources=""):
        recipe = Recipe.load(tmp_path)
        return recipe.stage_key(recipe.stages[0], below=below, packages=packages or {}, sources=sources)

    write(tmp_path, text, a="one")
    first = key()
    assert key() == first
    assert key(below="x") != first
    assert key(packages={"zsh": "1"}) != first
    assert key(packages={"zsh": "1"}) != key(packages={"zsh": "2"})
    write(tmp_path, text, a="two")
    assert key() != first
    write(tmp_path, text, a="one", another="two")
    assert key() == first
    (tmp_path / "a" / "file").write_text("")
    assert key() != first
