"""Several replicas and several workers: records cover the data of all of them.

The programs are in `distributed.py`. Their results are compared here with float64 numpy.

Two cases are not tested, because Keras 3.15.1 itself fails without a monitor:
`steps_per_execution` above 1 under a MirroredStrategy ("Detected at node
while/cond/Placeholder_1"), and a first batch that is not divisible by the number of
replicas (`_maybe_symbolic_build` adds up the replicas' shares of it).
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import activation_monitor
import distributed
import models
from activation_monitor import read_recording
from activation_monitor.analysis import records
from activation_monitor.recording.backends import backend

SECONDS = 600  # time limit of a process, many times its usual duration
X, Y = models.data(samples=24)


def start(program, found_file, *arguments, **environment):
    """Start a program in a separate process. Its output is written to a file."""
    package = str(Path(activation_monitor.__file__).parents[1])
    here = {"PYTHONPATH": package, "CUDA_VISIBLE_DEVICES": "-1", **environment}
    with open(f"{found_file}.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, distributed.__file__, program, found_file, *arguments],
            env=os.environ | here,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def end(*processes):
    """Wait for the processes and kill them if they do not end in time."""
    try:
        for process in processes:
            process.wait(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{process.args} has not ended in {SECONDS} s")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def found_in(path):
    """The results that a program has saved."""
    assert path.exists(), Path(f"{path}.log").read_text()
    return pickle.loads(path.read_bytes())


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """The results of two replicas in one process."""
    path = tmp_path_factory.mktemp("mirrored") / "found"
    end(start("mirrored", path))
    return found_in(path)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """The results and log folders of two workers. The second worker was killed."""
    folder = tmp_path_factory.mktemp("workers")
    files = [folder / f"found_{i}" for i in range(2)]
    logs = [folder / f"logs_{i}" for i in range(2)]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in distributed.free_ports(2)]}
    processes = []
    for i in range(2):
        place = {"cluster": cluster, "task": {"type": "worker", "index": i}}
        processes.append(
            start("worker", files[i], str(i), logs[i], TF_CONFIG=json.dumps(place))
        )
    end(*processes)
    codes = [process.returncode for process in processes]
    return SimpleNamespace(found=[*map(found_in, files)], logs=logs, codes=codes)


def numbers(whole, shares, activation="linear"):
    """The fields of the record of an array that was split between replicas."""
    finite = whole[np.isfinite(whole)]
    kept = [np.ma.masked_invalid(share) for share in shares if len(share)]
    low, high = records.SATURATED.get(activation, (-np.inf, np.inf))
    spread = sum(np.sum((share - share.mean(axis=0)) ** 2) for share in kept)
    return {
        "count": whole.size,
        "samples": len(whole),
        "nonfinite": whole.size - finite.size,
        "zeros": np.sum(finite == 0),
        "mean": finite.mean(),
        "variance": finite.var(),
        "second_moment": np.mean(finite**2),
        # It is defined for one batch, and each replica has its own batch.
        "within_variance": spread / finite.size,
        "minimum": finite.min(),
        "maximum": finite.max(),
        "saturated": np.sum((finite <= low) | (finite >= high)),
        "dead_units": min(np.sum((share == 0).all(axis=0)) for share in kept),
    }


def assert_measured(snapshot, weights, *shares, only=None):
    """The snapshot equals the statistics of `distributed.forward` in float64 numpy.

    Args:
        snapshot: The snapshot.
        weights: The weights of the model before the step.
        *shares: The input of each replica.
        only: Name of the only layer to check; None for all layers.
    """
    by_share = [distributed.forward(weights, share) for share in shares]
    whole = distributed.forward(weights, np.concatenate(shares))
    assert snapshot.names == tuple(whole)
    for i, layer in enumerate(snapshot.layers):
        if only not in (None, layer.name):
            continue
        of_layer = [share[layer.name] for share in by_share]
        expected = numbers(whole[layer.name], of_layer, layer.activation)
        for field, value in expected.items():
            got = snapshot.field(field)[i]
            size = np.sqrt(expected["second_moment"])
            np.testing.assert_allclose(
                *(got, value),
                rtol=2e-6,
                atol=1e-6 * size if field in ("mean", "minimum", "maximum") else 0,
                err_msg=f"{field} of {layer.name} at step {snapshot.step}",
            )


def split(x, rows):
    """Split a global batch between two replicas. The first one has the odd row."""
    return np.split(x[:rows], [(rows + 1) // 2])


def assert_counted(found, batches):
    """Units that were not active on any replica in any batch so far, in float64 numpy."""
    active, samples = np.zeros(16, bool), 0
    for i, (snapshot, batch) in enumerate(zip(found["snapshots"], batches, strict=True)):
        outputs = distributed.forward(found["weights"][i], batch)
        active |= (outputs["net/first"] > 0).any(axis=0)
        samples += len(batch)
        row = snapshot.names.index("net/first")
        expected = [np.sum(~active), i + 1, samples]
        np.testing.assert_array_equal(snapshot.activity[row], expected)


# -- replicas in one process


@pytest.mark.parametrize("case", ["compiled", "eager"])
def test_in_fit_the_record_is_that_of_the_global_batch(mirrored, case):
    """This holds for any split, at every step, with the weights before the step."""
    found = mirrored[case]
    assert [snapshot.step for snapshot in found["snapshots"]] == [0, 1]
    for i, snapshot in enumerate(found["snapshots"]):
        batch = X[12 * i : 12 * i + 12]
        assert_measured(snapshot, found["weights"][i], *split(batch, 12))
    assert_counted(found, [X[:12], X[12:24]])


def test_an_unevenly_split_batch_is_merged_by_its_elements(mirrored):
    """The last batch of an epoch has two rows on one replica and one on the other."""
    found = mirrored["odd"]
    assert len(found["snapshots"]) == 3
    for i, snapshot in enumerate(found["snapshots"]):
        batch = X[:19][8 * i : 8 * i + 8]
        assert_measured(snapshot, found["weights"][i], *split(batch, len(batch)))
    assert_counted(found, [X[:8], X[8:16], X[16:19]])


@pytest.mark.parametrize("case", ["watched", "measured eagerly"])
def test_in_a_custom_loop_the_record_is_that_of_the_global_batch(mirrored, case):
    """With `watch` for a step that calls `strategy.run`, or eagerly with `measure_step`.

    The replicas have four and three rows; at the last step one row and none.
    """
    found = mirrored[case]
    assert [snapshot.step for snapshot in found["snapshots"]] == [0, 1, 2]
    for i, snapshot in enumerate(found["snapshots"]):
        batch = X[:15][7 * i : 7 * i + 7]
        assert_measured(snapshot, found["weights"][i], *split(batch, len(batch)))


def test_all_calls_of_the_replicas_in_one_step_are_distinguished(mirrored):
    """The second `strategy.run` continues the count of calls: a layer called in both is two
    taps, and each of them is measured on the global batch."""
    for snapshot in mirrored["two runs"]["snapshots"]:
        layers = ("first/0:input", "first/0", "second/0", "head/0")
        again = ("first/1", "second/1", "head/1")
        assert snapshot.names == tuple(f"net/{name}" for name in layers + again)
        np.testing.assert_array_equal(snapshot.field("samples"), 12)


@pytest.mark.parametrize("case", ["eager", "watched", "images"])
def test_training_on_replicas_is_the_same_with_and_without_the_monitor(mirrored, case):
    """Weights and losses are equal bit for bit, also with dropout and batch
    normalization."""
    found, plain = mirrored[case], mirrored[f"{case}, plain"]
    assert len(found["snapshots"]) >= 2
    assert found["losses"] == plain["losses"]
    assert any(
        (a != b).any() for a, b in zip(plain["weights"][0], plain["final"], strict=True)
    )
    for monitored, expected in zip(found["final"], plain["final"], strict=True):
        np.testing.assert_array_equal(monitored, expected)


@pytest.mark.parametrize(
    "case",
    ["compiled", "eager", "odd", "watched", "measured eagerly", "images", "validated"],
)
def test_a_healthy_network_on_replicas_has_no_warnings(mirrored, case):
    """There is neither a finding nor a warning about measuring."""
    assert mirrored[case]["warned"] == []


def test_compiled_steps_on_replicas_know_the_layer_graph(mirrored):
    """The trace of each replica is read separately."""
    for case in ("compiled", "watched"):
        layers = mirrored[case]["snapshots"][0].layers
        assert [layer.parents for layer in layers] == [(), (0,), (1,), (2,)]
        assert all(layer.traced for layer in layers)


def test_kernels_on_replicas_are_measured(mirrored):
    """They are measured before the step changes them, and are equal on all replicas."""
    for case in ("compiled", "watched"):
        found = mirrored[case]
        kernels = found["snapshots"][0].quantities["weight"]
        for row, kernel in zip(kernels[1:], found["weights"][0][::2], strict=True):
            kernel = kernel.astype(np.float64)
            np.testing.assert_allclose(
                [records.field(row, name) for name in ("count", "variance", "maximum")],
                [kernel.size, kernel.var(), kernel.max()],
                rtol=1e-6,
            )


def test_histograms_are_those_of_the_first_replica(mirrored):
    """They count the first replica's share of the batch."""
    found = mirrored["compiled"]
    share = distributed.forward(found["weights"][0], X[:6])
    for name in ("net/first:input", "net/second"):
        counted = found["snapshots"][0].histogram(name).rows
        values = share[name]
        np.testing.assert_allclose(
            [counted[0, 0], counted[-1, 1]], [values.min(), values.max()], rtol=1e-6
        )
        edges = np.append(counted[:, 0], counted[-1, 1])
        edges[[0, -1]] += [-1e-6, 1e-6]  # float32 against float64
        np.testing.assert_array_equal(counted[:, 2], np.histogram(values, edges)[0])


@pytest.mark.parametrize("case", ["nan", "subnormal"])
def test_values_of_one_replica_only_are_measured_by_an_exact_pass(mirrored, case):
    """The next step measures subnormal elements and the finite elements beside a NaN."""
    found = mirrored[case]
    shares = np.split(distributed.spoiled_batches()[case], 2)
    quick, exact = found["snapshots"]
    assert_measured(exact, found["weights"][0], *shares, only="net/first:input")
    variance = quick.field("variance")[0]
    assert np.isnan(variance) == (case == "nan")
    assert quick.field("nonfinite")[0] == (case == "nan")


@pytest.mark.parametrize("case", ["own record", "own record, monitored"])
@pytest.mark.parametrize("passes", ["training", "inference"])
def test_a_monitored_layer_covers_all_replicas(mirrored, case, passes):
    """Over two steps and over two batches of an evaluation, the last of which is odd, with
    the callback and without."""
    found = mirrored[case]
    assert found["warned"] == []
    sizes = {"training": (12, 12), "inference": (8, 3)}[passes]
    batches = np.split(X[: sum(sizes)], [sizes[0]])
    shares = [part for batch in batches for part in split(batch, len(batch))]
    outputs = [distributed.forward(found["final"], part)["net/first"] for part in shares]
    expected = numbers(np.concatenate(outputs), outputs)
    got = found[passes]
    assert got["count"] == expected["count"]
    assert got["dead_units"] == expected["dead_units"]
    np.testing.assert_allclose(
        [got[name] for name in ("mean", "std", "rms", "within_std", "maximum")],
        [
            expected["mean"],
            *np.sqrt(
                [
                    expected[name]
                    for name in ("variance", "second_moment", "within_variance")
                ]
            ),
            expected["maximum"],
        ],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        got["zero_fraction"], expected["zeros"] / expected["count"], rtol=1e-12
    )


def test_an_evaluation_on_replicas_is_measured_whole(mirrored):
    """It covers all batches of all replicas, with the weights at that time."""
    found = mirrored["validated"]
    (snapshot,) = found["validation"]
    assert snapshot.step == 2
    shares = [*split(X, 8), *split(X[8:], 3)]
    assert_measured(snapshot, found["final"], *shares)
    assert [len(s.layers) for s in found["snapshots"]] == [4, 4]
    for i, training in enumerate(found["snapshots"]):
        batch = X[12 * i : 12 * i + 12]
        assert_measured(training, found["weights"][i], *split(batch, 12))


# -- workers


def test_each_worker_measures_its_own_share(workers):
    """They sample the same steps, even if one worker has only subnormal inputs."""
    for index, found in enumerate(workers.found):
        assert found["warned"] == []
        assert [snapshot.step for snapshot in found["snapshots"]] == [0, 1, 2, 3, 5, 6]
        for snapshot in found["snapshots"]:
            x, _ = distributed.share(index, snapshot.step)
            # A subnormal number added to a bias does not change it in float32.
            tiny = (index, snapshot.step) == (1, distributed.TINY_STEP)
            only = "net/first:input" if tiny else None
            assert_measured(snapshot, found["weights"][snapshot.step], x, only=only)


def test_workers_stay_together(workers):
    """Their final weights are equal and differ from the initial weights."""
    first, second = (found["final"] for found in workers.found)
    assert (first[0] != workers.found[0]["weights"][0][0]).any()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_chief_writes_files(workers):
    """In a cluster without a chief, the first worker writes them."""
    assert [log.exists() for log in workers.logs] == [True, False]


def test_the_files_of_a_killed_worker_stay_readable(workers):
    """They contain all samples until then, although they were not closed."""
    assert workers.codes == [0, -9]
    recording = read_recording(workers.logs[0])
    assert recording.steps == [0, 1, 2, 3, 5, 6, 9, 10, 12]
    for read, kept in zip(recording, workers.found[0]["snapshots"], strict=False):
        np.testing.assert_array_equal(read.records(), kept.records())


def test_with_several_workers_a_function_may_not_choose_the_steps(workers):
    """A worker that runs its first sampled step alone ends training or waits forever."""
    for found in workers.found:
        assert found["refused"] == (
            "ValueError: ActivationMonitor: with several workers `sample_every` must be a "
            "number, so that all 2 workers sample the same steps. Received: a function."
        )


def test_fit_with_several_workers_ends_as_it_does_without_the_monitor(workers):
    """Keras 3.15.1 itself raises in `_maybe_symbolic_build` (keras issue 20585): "Attempt
    to convert a value (PerReplica"."""
    for found in workers.found:
        assert found["fit"] == found["fit, plain"]


# -- strategies that are refused


def test_a_model_of_parameter_servers_is_refused_with_one_warning(tmp_path):
    """Nothing is measured. A coordinator schedules the step as without a monitor."""
    path = tmp_path / "found"
    end(start("parameter_servers", path))
    found = found_in(path)
    assert found["warned"] == [
        "ActivationMonitor: nothing is measured, training goes on (NotImplementedError: "
        "models of a ParameterServerStrategyV2 cannot be measured; use a "
        "MirroredStrategy or a MultiWorkerMirroredStrategy)."
    ]
    assert found["snapshots"] == []
    np.testing.assert_allclose(found["result"], found["expected"], rtol=1e-5)


def strategy_of(task_type=None, task_id=None, **jobs):
    """A replacement of a strategy in a cluster with these numbers of tasks per job."""
    spec = {job: [f"{job}{i}:1" for i in range(n)] for job, n in jobs.items()}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(spec), task_type=task_type, task_id=task_id
    )
    return SimpleNamespace(cluster_resolver=resolver, num_replicas_in_sync=1)


@pytest.mark.parametrize(
    ("strategy", "together", "writes"),
    [
        (tf.distribute.get_strategy(), 1, True),
        (strategy_of(), 1, True),  # a MultiWorkerMirroredStrategy without a TF_CONFIG
        (strategy_of("worker", 0, worker=2), 2, True),
        (strategy_of("worker", 1, worker=2), 2, False),
        (strategy_of("chief", 0, chief=1, worker=2), 3, True),
        (strategy_of("worker", 0, chief=1, worker=2), 3, False),
        (strategy_of("worker", 0, worker=2, evaluator=1), 2, True),
        (strategy_of("evaluator", 0, chief=1, worker=2, evaluator=1), 1, True),
    ],
)
def test_the_chief_writes_and_an_evaluator_works_alone(strategy, together, writes):
    """As in TensorFlow, the first worker is the chief if there is no chief job."""
    assert backend.workers(strategy) == together
    assert backend.is_chief(strategy) == writes


def test_strategies_on_one_device_are_measured():
    """The default strategy, and OneDeviceStrategy."""
    backend.check_strategy(tf.distribute.get_strategy())
    backend.check_strategy(tf.distribute.OneDeviceStrategy("CPU:0"))


def test_a_strategy_that_is_not_known_is_refused():
    """A strategy with a cluster but without mirrored replicas."""
    with pytest.raises(NotImplementedError, match="models of a SimpleNamespace cannot be"):
        backend.check_strategy(strategy_of("worker", 0, worker=2))
