from hypothesis import given
from hypothesis import strategies as st

from penstock.experiments.plots import pareto_front

POINTS = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 100)), min_size=1, max_size=12)


@given(POINTS)
def test_a_point_is_on_the_front_unless_another_beats_it(points: list[tuple[float, float]]) -> None:
    front = pareto_front(points)

    for point in points:
        beaten = any(
            other[0] <= point[0] and other[1] >= point[1] and other != point for other in points
        )
        assert (point in front) is not beaten
