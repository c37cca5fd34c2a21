"""From a config to its stream, and to the environments in which its learners are evaluated."""

import functools
import warnings
from collections.abc import Mapping
from typing import Any

from plasticity.config.counters import check_stream
from plasticity.config.experiments import Experiment, read_experiment
from plasticity.config.settings import paths
from plasticity.core.errors import UserError
from plasticity.engine.visits import scheduled
from plasticity.envs.base import StreamFactory
from plasticity.runs.building import checked
from plasticity.runs.members import registry


def source_of(experiment: Experiment) -> StreamFactory:
    """The stream with its transforms and its schedule. ``UserError`` if they do not fit."""
    source: StreamFactory = checked("stream", experiment.stream.build())
    checked("stream", check_stream, source.spec)
    for path, each in zip(paths("transforms", experiment.transforms), experiment.transforms, strict=True):
        source = checked(path, checked(path, each.build()), source)
    spec = checked("schedule", functools.partial(scheduled, source.spec, **vars(experiment.schedule)))
    checked("schedule", check_stream, spec)
    if experiment.reference and len(spec.visits) < 2:
        raise UserError("reference: true is not allowed with one visit: each arm is then a single-task learner")
    beyond = [count for count in experiment.keep_checkpoints if isinstance(count, int) and count > len(spec.visits)]
    if beyond:
        raise UserError(f"keep_checkpoints: {beyond[0]} is not allowed; the stream has {len(spec.visits)} visits")
    make = source.make
    return StreamFactory(spec, lambda lanes: make(lanes)._replace(spec=spec), evaluation=source.evaluation)


def stream_of(config: Mapping[str, Any]) -> StreamFactory:
    """The stream of the keys ``stream`` and ``transforms`` of a config; it warns of nothing."""
    given = {"stream": config["stream"], "transforms": config["transforms"], "agent": "classifier"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return source_of(read_experiment(given, registry(), source="the environment of a dataset"))


def evaluation_source(source: StreamFactory) -> StreamFactory:
    """Where the learners of a stream are evaluated. ``UserError`` if it has no such place."""
    if source.evaluation is None:
        return source
    made: StreamFactory = checked("evaluation", source.evaluation, stream_of)
    return made
