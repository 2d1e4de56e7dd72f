"""Labels: inside the room, and free ones cover neither marks nor each other."""

from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.figures.label_places import Wanted, place

spots = st.tuples(st.floats(0, 6), st.floats(0, 2))
wanted = st.builds(
    Wanted, st.floats(0.2, 1.2), st.just(0.1), st.lists(spots, min_size=1, max_size=3),
    st.sampled_from([(), (1,), (1, -1)]),
)  # fmt: skip
ROOM = (0.0, 0.0, 6.0, 2.0)


def apart(one, other) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(wanted, max_size=8), st.lists(spots, max_size=8))
def test_free_labels_cover_nothing_that_was_there_and_all_stay_inside(labels, marks) -> None:
    obstacles = [(x - 0.03, y - 0.03, x + 0.03, y + 0.03) for x, y in marks]
    found = place(labels, obstacles, ROOM)
    assert len(found) == len(labels)
    before = list(obstacles)
    for label, placed in zip(labels, found, strict=True):
        if placed is None:
            continue
        left, bottom, right, top = placed.box
        assert ROOM[0] <= left and ROOM[1] <= bottom and right <= ROOM[2] and top <= ROOM[3]
        assert abs(right - left - label.width) < 1e-9
        # One that is not free may also have a line that crosses something, or stand too near to a text.
        assert not placed.free or all(apart(placed.box, other) for other in before)
        before.append(placed.box)


def test_the_nearest_free_place_is_taken() -> None:
    alone = place([Wanted(0.5, 0.1, [(3.0, 1.0)])], [], ROOM)[0]
    assert alone and alone.box[0] > 3.0, "right of its mark"
    beside = place([Wanted(0.5, 0.1, [(3.0, 1.0)])], [(3.1, 0.9, 3.5, 1.1)], ROOM)[0]
    assert beside and beside.free and beside.box[2] < 3.0, "left of it"
    below = place([Wanted(0.5, 0.1, [(3.0, 1.0)], (-1,))], [], ROOM)[0]
    assert below and below.box[3] < 1.0


def test_a_label_without_any_room_has_no_place() -> None:
    assert place([Wanted(7.0, 0.1, [(3.0, 1.0)])], [], ROOM) == [None]


def test_a_line_to_a_mark_goes_around_other_labels_and_marks() -> None:
    """All places near the mark are taken but two: one lies behind an obstacle, as seen from the mark."""
    mark = (2.0, 2.0)
    ring = [(1.0, 1.5, 1.9, 2.5), (2.1, 1.5, 3.0, 2.5), (1.9, 2.1, 2.1, 2.2)]
    (found,) = place([Wanted(0.3, 0.1, [mark])], ring, (0.0, 0.0, 4.0, 4.0))
    assert found is not None and found.free and found.box[3] < 2.0, "below, where nothing is in the way"


def test_a_label_without_a_free_place_covers_a_line_before_a_text() -> None:
    text = Wanted(0.3, 0.1, [(1.0, 1.0)], sides=(1,))
    room = (0.7, 1.0, 1.3, 1.3)
    first, second = place([text, Wanted(0.3, 0.1, [(1.0, 1.0)])], [(0.7, 1.2, 1.3, 1.3)], room)
    assert first is not None and second is not None and not second.free
    box, other = second.box, first.box
    assert box[0] >= other[2] or box[2] <= other[0] or box[1] >= other[3] or box[3] <= other[1]


def test_labels_beside_each_other_are_not_read_as_one() -> None:
    line = Wanted(1.0, 0.1, [(1.0, 1.0)], sides=(1,))
    beside = Wanted(1.0, 0.1, [(2.05, 1.0), (2.6, 1.0)], sides=(1,))
    first, second = place([line, beside], [], (0.0, 0.0, 4.0, 4.0))
    assert first is not None and second is not None
    assert second.box[0] - first.box[2] >= 0.2 or second.box[1] >= first.box[3]
