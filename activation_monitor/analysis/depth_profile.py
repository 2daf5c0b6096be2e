"""A snapshot along depth: the trunk, its weight layers, and the growth of the signal."""

import functools
from collections.abc import Iterable

import numpy as np

from activation_monitor.analysis import growth, trunk
from activation_monitor.analysis.growth import GrowthRange
from activation_monitor.analysis.layer_graph import graph_of
from activation_monitor.analysis.links import Link, links_of
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.trunk import Segment


class DepthProfile:
    """The trunk of one snapshot.

    A part is computed when it is first used: after the first snapshot, rules need hardly
    more than the graph, which does not change from step to step.

    Args:
        snapshot: The snapshot. The parents of its layers must be known.

    Attributes:
        step: Step of the snapshot.
        depths: Depth of every layer of the snapshot, `(layers,)`.
        graph: The layer graph.
    """

    def __init__(self, snapshot: Snapshot):
        self.step = snapshot.step
        self.graph = graph_of(snapshot)
        self.depths = self.graph.depth
        self._snapshot = snapshot

    @functools.cached_property
    def links(self) -> dict[int, Link]:
        """All weight layers, by row."""
        return links_of(self._snapshot, self.graph, self._rms)

    @functools.cached_property
    def segments(self) -> tuple[Segment, ...]:
        """In the order of the data path."""
        # Towers and several outputs share segments: each is kept once.
        return tuple(
            trunk.segment(rows, is_open, self._snapshot, self.graph, self.links, self._rms)
            for rows, is_open in dict.fromkeys(trunk.segment_rows(self.graph))
        )

    @functools.cached_property
    def growth_ranges(self) -> tuple[GrowthRange, ...]:
        """In the order of the data path."""
        found: dict[object, GrowthRange] = {}
        mean = self._snapshot.statistic("mean")
        for rows, is_open in trunk.segment_rows(self.graph):
            for part in growth.parts(rows, self.graph.layers, self._rms):
                reaches_head = is_open and part[-1] == rows[-1]
                one = growth.growth_range(part, reaches_head, self.graph, self._rms, mean)
                found.setdefault((one.points, one.open), one)
        return tuple(found.values())

    @property
    def on_trunk(self) -> set[int]:
        """The rows of all segments."""
        return {row for rows, _ in trunk.segment_rows(self.graph) for row in rows}

    @functools.cached_property
    def _rms(self) -> np.ndarray:
        """Rms of each output, NaN if not all of it is finite."""
        bad = self._snapshot.field("nonfinite") > 0
        return np.where(bad, np.nan, self._snapshot.statistic("rms"))

    @property
    def main(self) -> GrowthRange | None:
        """The longest growth range that reaches a head; None if none has two layers."""
        found = [one for one in self.growth_ranges if one.open and one.layers >= 1]
        return max(found, key=lambda one: one.layers, default=None)

    def links_before(self, rows: Iterable[int]) -> tuple[Link, ...]:
        """The weight layers that compute these rows.

        Args:
            rows: Rows of the snapshot.

        Returns:
            One link for each weight layer, in the order of `rows`. A row that several
            weight layers compute together has none.
        """
        found = dict.fromkeys(self.graph.weight_before(row) for row in rows)
        return tuple(self.links[row] for row in found if row is not None)

    def stream_through(self, rows: Iterable[int]) -> GrowthRange | None:
        """The residual stream that reaches the head and has one of these rows, if any."""
        wanted = set(rows)
        for one in self.growth_ranges:
            passed = {point.row for point in one.points}
            if one.residual and one.open and passed & wanted:
                return one
        return None

    @one_line
    def __repr__(self) -> str:
        main = self.main
        rate = f"growth {main.growth:.3g} per weight layer" if main else "no growth"
        size = f"{count(len(self.depths), 'layer')}, depth {max(self.depths, default=0)}"
        ranges = count(len(self.growth_ranges), "growth range")
        return f"of step {self.step}: {size}, {ranges}, {rate}"


def depth_profile(snapshot: Snapshot) -> DepthProfile:
    """Read a snapshot along depth, on the way to each output of the network.

    Args:
        snapshot: The snapshot. The parents of its layers must be known.
    """
    return DepthProfile(snapshot)
