"""What differs between Keras' backends: the protocol, and one that is not built yet."""

import importlib
import inspect
import subprocess
import sys
import textwrap

import pytest

from activation_monitor.analysis.health import Health
from activation_monitor.recording.backends import protocol
from activation_monitor.recording.steps import DENSE, Schedule


def members():
    """Names that the protocol asks for."""
    functions = [name for name in vars(protocol.Backend) if not name.startswith("_")]
    return sorted({*functions, *protocol.Backend.__annotations__})


BACKENDS = ["tensorflow", "jax", "torch"]


def module_of(backend):
    pytest.importorskip(backend)
    return importlib.import_module(f"activation_monitor.recording.backends.{backend}")


@pytest.mark.parametrize("name", members())
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_what_the_protocol_asks_for(backend, name):
    """With the same parameters, in the same order."""
    expected = getattr(protocol.Backend, name, None)
    found = getattr(module_of(backend), name)
    if expected is None:
        assert found is not None
        return
    parameters = list(inspect.signature(expected).parameters.values())[1:]
    own = list(inspect.signature(found).parameters.values())
    assert [p.name for p in own] == [p.name for p in parameters]
    assert [(p.kind, p.default) for p in own] == [(p.kind, p.default) for p in parameters]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_nothing_that_the_protocol_does_not_name(backend):
    """What only one backend has cannot be asked of the others."""
    assert sorted(module_of(backend).__all__) == members()


def test_on_a_backend_that_is_not_built_one_sentence_says_so():
    """Whatever is asked for. And no other backend is loaded in its place."""
    code = """
        import sys
        import keras
        import numpy as np
        keras.backend.backend = lambda: "openvino"
        from activation_monitor import ActivationMonitor, Monitored, audit, rescale
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        for ask in (
            lambda: ActivationMonitor(),
            lambda: audit(model, np.ones((2, 3))),
            lambda: Monitored(keras.layers.Dense(2))(np.ones((2, 3))),
            lambda: rescale(model, np.ones((2, 3))),
        ):
            try:
                ask()
            except NotImplementedError as error:
                print(error)
        print("activation_monitor.recording.backends.tensorflow" in sys.modules)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    sentence = (
        "activation_monitor does not support the openvino backend of Keras yet. Set the "
        "environment variable KERAS_BACKEND=tensorflow before Keras is imported."
    )
    assert run.stdout.splitlines() == [*[sentence] * 4, "False"], run.stderr


# -- the schedule


@pytest.mark.parametrize("first", [0, 7, 1234])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_next_step_is_the_first_that_the_rule_samples(every, first):
    """Multiples of the number, and the dense steps counted from the first one."""
    schedule = Schedule(every)
    sampled = {
        step
        for step in range(first, first + 400)
        if step % every == 0 or step - first in DENSE
    }
    for step in range(first, first + 250):
        expected = min(one for one in sampled if one >= step)
        assert schedule.next(step, first, Health()) == expected


@pytest.mark.parametrize(("step", "together", "expected"), [(8, 2, False), (8, 3, True)])
def test_an_execution_is_sampled_if_one_of_its_steps_is(step, together, expected):
    """Of several steps that run together each is asked for."""
    assert Schedule(100).samples(step, together, 0, Health()) == expected
    by_function = Schedule(lambda step: step == 10)
    assert by_function.samples(step, together, 0, Health()) == expected


def test_a_function_of_two_arguments_gets_the_health_of_the_run():
    """It may sample every step once something was found."""
    schedule = Schedule(lambda step, health: health.snapshots > 2)
    assert not schedule.samples(5, 1, 0, Health(snapshots=2))
    assert schedule.samples(5, 1, 0, Health(snapshots=3))


def test_a_function_whose_second_argument_has_a_default_gets_the_step_alone():
    """The default is the user's, a constant that the function is to use."""
    schedule = Schedule(lambda step, every=3: step % every == 0)
    assert schedule.samples(6, 1, 0, Health()) and not schedule.samples(7, 1, 0, Health())
