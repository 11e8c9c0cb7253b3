"""The measurements of a node: those of a service, and what it has of its cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import attrs

from marketflow.app.cluster.clock_offset import ClockOffset
from marketflow.app.cluster.node_figures import NodeFigures
from marketflow.app.cluster.sight import LastSight
from marketflow.app.interface import ClusterFigures, MeasurementQuestions, Measurements


@attrs.frozen
class NodeMeasuring:
    """Fills the port MeasurementQuestions for a node."""

    _measuring: MeasurementQuestions
    """Measures the rest."""
    _sight: LastSight
    _offset: ClockOffset
    _figures: NodeFigures
    _lags: Callable[[], Mapping[str, float]]
    """By exchange of the mode, the seconds since its mirror was up to date."""
    _held: Callable[[], Collection[str]]
    """The exchanges that this node has."""
    _redirects: Callable[[], Mapping[str, int]]
    """By kind of answer, how often a server of a Redis Cluster has sent this node elsewhere."""

    def measurements(self) -> Measurements:
        """All counters, read without an await."""
        lags, held, offset = self._lags(), self._held(), self._offset.offset
        return attrs.evolve(
            self._measuring.measurements(),
            cluster=ClusterFigures(
                held={exchange: exchange in held for exchange in lags},
                epochs={exchange: self._sight.epoch_of(exchange) for exchange in lags},
                takeovers={str(why): count for why, count in self._sight.takeovers.items()},
                fenced=dict(self._figures.fenced),
                redirects=self._redirects(),
                mirror_lag=lags,
                clock_offset=None if offset is None else offset / 1_000,
            ),
        )
