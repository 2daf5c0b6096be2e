"""A snapshot along depth: the trunk, its weight layers, and the growth of the signal."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import growth, trunk
from activation_monitor.analysis.growth import GrowthRange
from activation_monitor.analysis.layer_graph import LayerGraph
from activation_monitor.analysis.links import Link, links_of
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.trunk import Segment


@dataclass(frozen=True)
class DepthProfile:
    """The trunk of one snapshot.

    Attributes:
        step: Step of the snapshot.
        depths: Depth of every layer of the snapshot, `(layers,)`.
        growth_ranges: In the order of the data path.
        segments: In the order of the data path.
        links: All weight layers, by row.
        graph: The layer graph.
    """

    step: int
    depths: np.ndarray
    growth_ranges: tuple[GrowthRange, ...]
    segments: tuple[Segment, ...]
    links: dict[int, Link]
    graph: LayerGraph

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
    graph = LayerGraph(snapshot)
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
    mean = snapshot.statistic("mean")
    links = links_of(snapshot, graph, rms)
    # Towers and several outputs share segments: each is kept once.
    growth_ranges: dict[object, GrowthRange] = {}
    segments: dict[object, Segment] = {}
    for rows, is_open in trunk.segment_rows(graph):
        segment = trunk.segment(rows, is_open, snapshot, graph, links, rms)
        segments.setdefault((rows, is_open), segment)
        for part in growth.parts(rows, graph.layers, rms):
            reaches_head = is_open and part[-1] == rows[-1]
            found = growth.growth_range(part, reaches_head, graph, rms, mean)
            growth_ranges.setdefault((found.points, found.open), found)
    return DepthProfile(
        step=snapshot.step,
        depths=graph.depth,
        growth_ranges=tuple(growth_ranges.values()),
        segments=tuple(segments.values()),
        links=links,
        graph=graph,
    )
