"""Tagging by Ray, on a cluster of one or two nodes on this machine: pip install 'xlner[ray]'."""

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import SENTENCES

from xlner.config.schema import TagRecipe
from xlner.errors import RunError, XlnerError
from xlner.tag_files import engines
from xlner.tag_files.engines import Worker, tag_corpus

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    # Workers would step back behind all else on this machine; and they need this package.
    paths = os.pathsep.join([str(Path(engines.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": paths}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
        yield started
        started.shutdown()


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus").mkdir()
    lines = [f"{SENTENCES[number % 5]} {number}\n" for number in range(60)]
    (tmp_path / "corpus" / "a.txt").write_text("".join(lines))
    return tmp_path / "corpus"


def by_ray(cluster, model, corpus, output, **keys):
    address = cluster.address if cluster else ""
    return TagRecipe(str(model), str(corpus), str(output), 0.0005, engine="ray", address=address, **keys)


def content(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and ".shards" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def acts_as(monkeypatch, worker):
    """Have another class for workers, which nodes need not have on their disks."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(engines, "Worker", worker)


class Dying(Worker):
    """Killed in the middle of a shard, once."""

    def tag(self, shard):
        mark = Path(f"{self._recipe.output}-killed")
        if shard.first and not mark.exists():
            mark.touch()
            self._tagger.spans_in_sentences = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        return super().tag(shard)


class Deadly(Worker):
    """Killed by every shard."""

    def tag(self, shard):
        os.kill(os.getpid(), signal.SIGKILL)


class Elsewhere(Worker):
    """On a node where relative paths lead to another disk."""

    def __init__(self, *arguments):
        super().__init__(*arguments[:-1], "/")


@pytest.mark.slow
def test_a_killed_worker_costs_one_shard_and_the_files_are_those_of_one_process(
    cluster, monkeypatch, linear, corpus, tmp_path, capsys
):
    acts_as(monkeypatch, Dying)

    tag_corpus(by_ray(cluster, linear, corpus, tmp_path / "ray", workers=2))  # and a CPU for one of them

    told = capsys.readouterr().err
    tag_corpus(TagRecipe(str(linear), str(corpus), str(tmp_path / "one"), 0.0005, part="1/1", cpu=True, threads=1))
    assert (tmp_path / "ray-killed").exists()
    assert told.count("a worker of Ray was lost") == 1
    assert "whole: " in told
    assert content(tmp_path / "ray") == content(tmp_path / "one")
    assert len(content(tmp_path / "ray")) > 3


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_told_by_name(cluster, monkeypatch, linear, corpus, tmp_path):
    acts_as(monkeypatch, Deadly)
    monkeypatch.setattr(engines, "DEATHS", 1)

    with pytest.raises(RunError, match=r"a.txt: 2 workers of Ray have died over shard a-0000.-of"):
        tag_corpus(by_ray(cluster, linear, corpus, tmp_path / "tagged"))


@pytest.mark.slow
@pytest.mark.parametrize("relative", ["model", "input", "output"])
def test_what_a_node_does_not_see_is_told_by_name(cluster, monkeypatch, linear, corpus, tmp_path, relative):
    acts_as(monkeypatch, Elsewhere)
    monkeypatch.chdir(tmp_path)
    paths = {"model": str(linear), "input": str(corpus), "output": str(tmp_path / "tagged")}
    paths[relative] = Path(paths[relative]).name

    with pytest.raises(XlnerError, match=rf"node {socket.gethostname()}.*{relative}= must.* on a disk that all nodes"):
        tag_corpus(by_ray(cluster, paths["model"], paths["input"], paths["output"]))


@pytest.mark.slow
def test_another_version_on_a_node_is_told_by_name(cluster, monkeypatch, linear, corpus, tmp_path):
    monkeypatch.setattr(engines, "__version__", "99.0")

    with pytest.raises(RunError, match=f"node {socket.gethostname()} has xlner .*, 99.0 started the run"):
        tag_corpus(by_ray(cluster, linear, corpus, tmp_path / "tagged"))


@pytest.mark.slow
def test_a_cluster_without_a_place_is_waited_for_only_so_long(cluster, monkeypatch, linear, corpus, tmp_path):
    monkeypatch.setattr(engines, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(engines, "START_SECONDS", 1.0)

    with pytest.raises(RunError, match="the cluster has 1 CPUs, a worker needs 64"):
        tag_corpus(by_ray(cluster, linear, corpus, tmp_path / "tagged", threads=64))


def test_more_workers_than_this_machine_has_cpus_are_refused(linear, corpus, tmp_path):
    with pytest.raises(RunError, match=r"workers=9999 of 1 thread.* need 9999 CPUs, and there are"):
        tag_corpus(by_ray(None, linear, corpus, tmp_path / "tagged", workers=9999))


@pytest.mark.parametrize("answers", [True, False])
def test_an_address_without_ray_is_told_soon(monkeypatch, linear, corpus, tmp_path, answers):
    monkeypatch.setattr(engines, "ANSWER_SECONDS", 2.0)
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if not answers:
            server.close()
        recipe = TagRecipe(str(linear), str(corpus), str(tmp_path / "tagged"), engine="ray", address=address)

        with pytest.raises(RunError, match=f"address={address}: no Ray cluster there"):
            tag_corpus(recipe)


@pytest.mark.parametrize("address", ["nowhere", "host:", ":6379", "ray://host"])
def test_an_address_that_is_none_is_refused(linear, corpus, tmp_path, address):
    recipe = TagRecipe(str(linear), str(corpus), str(tmp_path / "tagged"), engine="ray", address=address)

    with pytest.raises(RunError, match="expected auto, host:6379 or ray://host:10001"):
        tag_corpus(recipe)
