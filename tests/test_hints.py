"""What is said of a name that there is not."""

import pytest

from activation_monitor.analysis.hints import no_such

LAYERS = [
    "net/embedding",
    *(f"net/hidden_{i}" for i in range(12)),
    "net/shared/0",
    "net/shared/1",
    "net/head:input",
    "net/head",
]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("hidden_1", ["net/hidden_1"]),  # without the model's name
        ("shared", ["net/shared/0", "net/shared/1"]),  # without the number of the call
        ("shared/1", ["net/shared/1"]),
        ("head", ["net/head:input", "net/head"]),
        ("net/embeding", ["net/embedding"]),  # mistyped
        ("embeding", ["net/embedding"]),  # both
        ("another_model/blocks/embeding", ["net/embedding"]),
    ],
)
def test_the_name_that_was_meant_is_suggested(asked, meant):
    """It is what the hint is for; nothing else is listed."""
    said = no_such("layer", asked, LAYERS)
    suggested = " or ".join(map(repr, meant))
    assert said == f"no layer named {asked!r}. Did you mean {suggested}?"


@pytest.mark.parametrize("asked", ["hidden_1", "Hidden_1", "hidden1"])
def test_of_many_names_that_are_alike_the_closest_come_first(asked):
    """And three at most."""
    said = no_such("layer", asked, LAYERS)
    assert said.count("net/hidden_") <= 3
    assert said.index("net/hidden_1'") == said.index("net/")


@pytest.mark.parametrize("asked", ["zzz", "", 3, None, "net/zzz/qqq", "[("])
def test_where_no_name_is_close_those_that_there_are_are_listed(asked):
    """Whatever was asked for."""
    said = no_such("layer", asked, LAYERS)
    assert said == f"no layer named {asked!r}. There are: {', '.join(LAYERS)}."


def test_a_long_list_is_cut():
    """It says how many there are besides."""
    said = no_such("layer", "zzz", [f"net/hidden_{i}" for i in range(200)])
    assert said.endswith("net/hidden_19 and 180 more.")
    assert said.count("hidden_") == 20


def test_what_is_listed_in_any_case_is_listed_in_full():
    """With the suggestion before it."""
    names = [f"name_{i}" for i in range(30)]
    said = no_such("statistic", "nam_7", names, listed=True)
    assert "Did you mean 'name_7'" in said
    assert said.endswith(f"There are: {', '.join(names)}.")
    assert no_such("field", "x", []) == "no field named 'x'. There are: none."
