"""The short table of a result."""

from lightning_cnn.cli.metric_table import metric_table


def test_small_and_large_numbers_say_something() -> None:
    values = {"val/loss": 3.21e-5, "test/loss": 0.0, "val/mae": 123456.789, "test/mae": 0.12345, "val/r2": float("nan")}
    lines = [line.split() for line in metric_table(values).splitlines()]
    assert lines == [["val", "test"], ["loss", "3.21e-05", "0.0000"], ["mae", "1.23e+05", "0.1235"], ["r2"]]
