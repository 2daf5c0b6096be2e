"""`explain`: the section of the documentation on a finding."""

import pytest

from activation_monitor.views import explain

TEXT = """\
# Findings

What comes before the first section.

## dead-units

ReLU units are zero for every sample.

### What to do

```python
## mean-shift
model.compile(keras.optimizers.Adam(1e-4))
```

## `mean-shift`

The mean outweighs the rest.

# Another chapter

Not part of a section.
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "findings.md"
    path.write_text(TEXT)
    return path


def test_a_section_is_from_its_heading_to_the_next_one(file):
    """With its subsections. A comment in code is not a heading."""
    dead = explain.explain("dead-units", file)
    assert dead.startswith("## dead-units\n\nReLU units") and dead.endswith("```")
    assert "### What to do" in dead and "Adam(1e-4)" in dead
    shift = explain.explain("mean-shift", file)
    assert shift == "## `mean-shift`\n\nThe mean outweighs the rest."
    assert explain.sections(TEXT).keys() == {"dead-units", "mean-shift"}


def test_an_unknown_code_is_refused_with_the_one_that_was_probably_meant(file):
    """And with all codes."""
    with pytest.raises(ValueError) as raised:
        explain.explain("dead-unit", file)
    said = str(raised.value)
    assert said.startswith(
        "explain: no finding named 'dead-unit'. Did you mean 'dead-units'"
    )
    assert "There are: constant-input, " in said


def test_a_code_without_a_section_is_an_error_that_names_the_file(file):
    """And the sections that the file has."""
    with pytest.raises(ValueError, match="a section `## unscaled-input` in .*findings.md"):
        explain.explain("unscaled-input", file)


def test_a_section_is_printed_as_formatted_text(file, capsys):
    """Without the marks of Markdown."""
    explain.show("mean-shift", file)
    said = capsys.readouterr().out
    assert "mean-shift" in said and "The mean outweighs the rest." in said
    assert "#" not in said and "`" not in said
