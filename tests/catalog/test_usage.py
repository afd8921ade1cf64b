"""Uses are counted once each, by threads and processes, and survive them; a counter never fails a query."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from boucle.catalog.usage import Usage, Used
from boucle.errors import BoucleError
from tests.catalog.test_lineage import HandClock


def count(file: Path, times: int) -> None:
    usage = Usage(file)
    for _ in range(times):
        usage.count("press-line", "features", "grafana", "sql", 10)
    usage.close()


def test_counted_by_table_user_and_way(tmp_path: Path) -> None:
    usage = Usage(tmp_path / "usage.sqlite", HandClock())
    for who, via, rows in (("ada", "sql", 100), ("ada", "sql", 1), ("bob", "rest", 5)):
        usage.count("press-line", "features", who, via, rows)
    usage.count("other", "features", "ada", "sql")
    assert [(one.who, one.via, one.times, one.rows) for one in usage.used("press-line")] == [
        ("ada", "sql", 2, 101),
        ("bob", "rest", 1, 5),
    ]
    assert isinstance(usage.used("press-line", "features")[0], Used)
    assert usage.used("press-line", "nothing") == []
    assert usage.daily("press-line") == [("2026-11-21", 3)]
    usage.close()


def test_many_threads_and_processes_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "usage.sqlite"
    Usage(file).close()
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=count, args=(file, 50)) for _ in range(2)]
    threads = [threading.Thread(target=count, args=(file, 50)) for _ in range(2)]
    for process in processes:
        process.start()
    for thread in threads:
        thread.start()
    for process in processes:
        process.join()
    for thread in threads:
        thread.join()
    usage = Usage(file)
    (used,) = usage.used("press-line", days=365)
    assert (used.times, used.rows) == (200, 2000)
    usage.close()


def test_old_uses_are_left_out(tmp_path: Path) -> None:
    clock = HandClock()
    usage = Usage(tmp_path / "usage.sqlite", clock)
    usage.count("p", "t", "ada")
    clock.sleep(40 * 86_400)
    usage.count("p", "t", "bob")
    assert [one.who for one in usage.used("p", days=30)] == ["bob"]
    assert len(usage.used("p", days=50)) == 2
    usage.close()


def test_a_counter_that_cannot_write_says_how_many_it_lost(tmp_path: Path) -> None:
    usage = Usage(tmp_path / "usage.sqlite")
    usage.close()
    usage.count("p", "t")
    assert usage.lost == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(BoucleError) as caught:
        Usage(tmp_path / "file" / "usage.sqlite")
    assert caught.value.code == "B569"
