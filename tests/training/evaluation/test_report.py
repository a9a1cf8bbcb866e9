from training.evaluation.report import table


def test_where_nothing_was_measured_it_is_said_why() -> None:
    assert "no figures: there are too few real images" in table(())
