"""The figure of many features has a mark of every cell, and joins those of equal n·d."""

from benchmarks import draw_many_features
from tests.workflow.planning import ROOT

new = draw_many_features.new_figure


def test_every_cell_is_drawn_and_only_equal_ones_are_joined(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        draw_many_features, "new_figure", lambda *size: figures.append(made := new(*size)) or made
    )
    draw_many_features.draw(ROOT / draw_many_features.ROWS, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    left, right = figures[0].axes
    joined, alone, *_ = left.lines
    assert [*joined.get_xdata()] == [4608, 18432, 36864, 73728] and joined.get_linestyle() == "-"
    assert [*alone.get_xdata()] == [58368, 1 << 20] and alone.get_linestyle() == "None"
    assert len(left.lines) == 4 and len(right.lines) == 2
