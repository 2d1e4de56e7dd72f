from __future__ import annotations

from threading import Barrier, Thread

import pytest
import torch

from expander_sae.kernels.threads import even_bounds, run, undisturbed


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_inside_the_kernels_keep_their_threads_and_pytorch_has_one() -> None:
    with undisturbed():
        assert torch.get_num_threads() == 1
        assert even_bounds(9) == [0, 3, 6, 9]
        with undisturbed():
            assert even_bounds(9) == [0, 3, 6, 9]
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_large_tensors_keep_the_threads_of_pytorch() -> None:
    with undisturbed(elements=1 << 22):
        assert torch.get_num_threads() == 3


def test_an_error_inside_gives_the_threads_back() -> None:
    with pytest.raises(ZeroDivisionError), undisturbed():
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


def test_each_python_thread_gets_its_own_threads_back() -> None:
    entered, left = Barrier(2), Barrier(2)
    found: list[int] = []

    def first() -> None:
        torch.set_num_threads(2)
        with undisturbed():
            entered.wait()
            found.append(len(even_bounds(9)) - 1)
        found.append(torch.get_num_threads())
        left.wait()

    other = Thread(target=first)
    other.start()
    with undisturbed():
        entered.wait()
        left.wait()
        assert even_bounds(9) == [0, 3, 6, 9]
    other.join()
    assert found == [2, 2]
    assert torch.get_num_threads() == 3


def test_a_python_thread_that_begins_meanwhile_is_not_left_with_one() -> None:
    """PyTorch gives new threads the number that was set last, in whatever thread."""
    entered, left = Barrier(2), Barrier(2)
    found: list[int] = []

    def first() -> None:
        with undisturbed():
            entered.wait()
            found.append(len(even_bounds(9)) - 1)
            left.wait()
        found.append(torch.get_num_threads())

    with undisturbed():
        other = Thread(target=first)
        other.start()
        entered.wait()
    left.wait()
    other.join()
    newest = Thread(target=lambda: found.append(torch.get_num_threads()))
    newest.start()
    newest.join()
    assert found == [3, 3, 3]


@pytest.mark.parametrize("count", range(1, 8))
def test_pieces_cover_everything_once(count: int) -> None:
    seen: list[int] = []
    run(lambda start, stop: seen.extend(range(start, stop)), even_bounds(count))
    assert sorted(seen) == list(range(count))
