"""Tables of figures on a terminal of 80 columns: every digit is shown."""

import itertools
import math
import re

import pytest

from activation_monitor.analysis import chain, chance, comparison, rescaling
from activation_monitor.views import console, tables

WIDE = (9.876e127, 1.234e-128, 1.234e-5, 98765.4321, math.inf, math.nan)
"""As long as numbers become: three digits, an exponent of three."""

LONG = "model/encoder/block_12/self_attention/query_dense"


def cycle(*more):
    """Wide values, again and again."""
    return itertools.cycle((*WIDE, *more)).__next__


def study():
    """A study whose rows have every wide value in every column; its numbers, written."""
    signed, size = cycle(*(-value for value in WIDE)), cycle()
    rows = []
    for product in range(1, 120):
        rows.append(chain.Product(product, signed(), *(size() for _ in range(5))))
        size()  # so that each column has each
    shown = [console.number(value) for row in rows for value in row[1:6]]
    shown += [f"{row.naive_std:.3g}" for row in rows]
    title = "A vector of std 0.01 times 512 x 512 matrices of std 0.01"
    return tables.study_table(chain.Study(title, tuple(rows), (), None, None)), shown


def calibration():
    """The same of a calibration, with the longest titles and names."""
    size = cycle()
    rows = []
    for i in range(30):
        figures = (size() for _ in range(6))
        rows.append(chain.CalibrationRow(f"product_{990 + i}", *figures))
        size()
    shown = [console.number(row.rms) for row in rows]
    shown += [f"{value:.4g}" for row in rows for value in row[2:6]]
    shown += [f"{row.error:.1e}" for row in rows]
    title = "1000 Dense layers of 512, weights of std 0.04419, mixed_bfloat16"
    law = chance.chain_law(512, 1.0, 1000)
    made = chain.Calibration(title, tuple(rows), 9.876e127, law)
    return tables.calibration_table(made), shown


def compared():
    """The same of a comparison: every size is marked."""
    size = cycle()
    pairs = []
    for _ in range(30):
        first, last = (size(), size()), (size(), size())
        pairs.append(comparison.Pair(LONG, LONG, 1234, first, last, True, True))
        size()
    shown = [console.number(value) for p in pairs for value in (p.first[0], p.last[0])]
    for pair in pairs:
        shown += [f"{console.number(value)}!" for value in (pair.first[1], pair.last[1])]
    found = comparison.Comparison(tuple(pairs), ("something",))
    return tables.comparison_table(found, ("logs/a", "logs/b")), shown


def rescaled():
    """The same of a rescaling."""
    size = cycle()
    layers = []
    for _ in range(30):
        layers.append(rescaling.RescaledLayer(LONG, size(), size(), size(), ""))
        size()
    shown = [
        console.number(value)
        for layer in layers
        for value in (layer.std_before, layer.std_after, layer.factor)
    ]
    return tables.rescaling_table(rescaling.Rescaling(tuple(layers))), shown


@pytest.mark.parametrize("make", [study, calibration, compared, rescaled])
def test_every_digit_is_shown_at_80_columns(make):
    """No line is longer, only names are cut, at their start and never over two lines, and
    all numbers stand in the table, as often as they are in the data."""
    table, expected = make()
    printed = console.as_text(table, width=80)
    assert max(map(len, printed.splitlines())) <= 80
    names = re.findall(r"…(\S*)", printed)
    ends = {LONG: 30} if make in (compared, rescaled) else {}
    ends |= {f"product_{990 + i}": 1 for i in range(30) if make is calibration}
    assert all(name and any(end.endswith(name) for end in ends) for name in names)
    assert len(names) == sum(ends.values())
    found = re.split(r"\s+", printed)
    for number in {*expected}:
        assert found.count(number) >= expected.count(number), number


def test_no_name_is_folded_where_numbers_are_those_of_float32():
    """Exponents of two digits leave room for the names; the widest for the headings."""
    small = -1.234e-38
    rows = [chain.CalibrationRow(f"product_{i}", *[-small] * 6) for i in (1, 20)]
    law = chance.chain_law(512, 1.0, 20)
    made = chain.Calibration("20 Dense layers", tuple(rows), 1.0, law)
    printed = console.as_text(tables.calibration_table(made), width=80)
    assert "product_20 " in printed and "product_1 " in printed
    table, _ = study()
    assert " product " in console.as_text(table, width=80)


@pytest.mark.parametrize("make", [study, calibration, compared, rescaled])
def test_the_widest_numbers_are_among_those(make):
    """The test above means something: there are numbers of nine characters and more."""
    _, expected = make()
    assert max(map(len, expected)) >= 9
    assert {"9.88e+127", "9.876e+127", "-9.88e+127", "9.88e+127!"} & {*expected}


def test_a_table_that_is_too_narrow_would_be_noticed():
    """At 60 columns something is cut."""
    table, _ = study()
    assert "…" in console.as_text(table, width=60)
