"""Widgets: the numbers are the indicators' own, the HTML says them, and moving a control changes what is read."""

import re

import numpy as np
import pandas as pd
import pytest

from debiaslib.errors import InputError
from debiaslib.indicators import Evidence, build_indicator
from debiaslib.rarity import effective_share, weighted_share
from debiaslib.widgets.weights import WeightExplorer, alpha_path, reading

IS_MALE = np.arange(100) < 20
ORACLE = np.where(IS_MALE, 1 / 0.2, 1 / 0.8)


@pytest.fixture
def paths() -> pd.DataFrame:
    """The oracle's and no weights, along three alphas, at two ratios."""
    parts = []
    for ratio, member in ((0.25, IS_MALE), (4, ~IS_MALE)):
        for name, values in (("none", np.ones(100)), ("oracle", ORACLE)):
            parts.append(alpha_path(values, member, alphas=[0, 0.05, 0.1]).assign(ratio=ratio, indicator=name))
    return pd.concat(parts, ignore_index=True)


def numbers(html: str) -> list[str]:
    """Indicator, p_eff and effective sample size of each row, as shown."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", html)
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in rows]


@pytest.mark.parametrize("alpha", [0, 0.01, 0.05, 0.1, 0.5])
def test_the_path_is_what_an_indicator_of_that_alpha_does(alpha: float):
    indicator = build_indicator("oracle", alpha=alpha)
    indicator.study(Evidence(is_male=IS_MALE))
    [row] = alpha_path(ORACLE, IS_MALE, alphas=[alpha]).itertuples()
    assert row.p_eff == pytest.approx(weighted_share(indicator.weights(100), IS_MALE), abs=1e-6)
    assert row.ess == pytest.approx(effective_share(indicator.weights(100)), abs=1e-6)


def test_the_path_begins_at_the_set_and_ends_where_full_strength_is():
    path = alpha_path(ORACLE, IS_MALE, alphas=[0, 0.1, 0.3])
    assert path["p_eff"].tolist() == pytest.approx([0.2, 0.5, 0.5])
    assert path["ess"].tolist() == pytest.approx([1, 0.64, 0.64])
    assert path["top_share"].tolist() == pytest.approx([0.01, 0.025, 0.025])


def test_the_reading_says_the_numbers_of_its_rows(paths: pd.DataFrame):
    assert numbers(reading(paths, ratio=0.25, alpha=0.1)) == ["none 0.20 100 of 100 faces", "oracle 0.50 64 of 100 faces"]
    assert numbers(reading(paths, ratio=4, alpha=0.05))[1] == "oracle 0.65 88 of 100 faces"
    assert "strength 0.5" in reading(paths, ratio=4, alpha=0.05)


def test_a_name_is_text_and_no_markup(paths: pd.DataFrame):
    assert "<b>" not in reading(paths.assign(indicator="<b>none"), ratio=4, alpha=0)


def test_what_is_not_there_is_said(paths: pd.DataFrame):
    with pytest.raises(InputError, match="no column 'ess'"):
        reading(paths.drop(columns="ess"), ratio=4, alpha=0)
    with pytest.raises(InputError, match="no row of ratio 4 and alpha 0.7"):
        reading(paths, ratio=4, alpha=0.7)


def test_moving_a_control_changes_the_reading(paths: pd.DataFrame):
    explorer = WeightExplorer(paths)
    assert numbers(explorer.readout.value)[1] == "oracle 0.20 100 of 100 faces"
    explorer.alpha.value = 0.1
    assert explorer.readout.value == reading(paths, ratio=0.25, alpha=0.1)
    explorer.ratio.value = 4
    assert explorer.readout.value == reading(paths, ratio=4, alpha=0.1)


def test_without_a_kernel_the_reading_is_still_there(paths: pd.DataFrame):
    explorer = WeightExplorer(paths)
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.readout.value
    assert bundle["text/plain"] == "WeightExplorer(alpha=0, ratio=0.25)" == repr(explorer)
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_the_path_does_not_mind_the_scale_of_the_values():
    one, other = (alpha_path(values, IS_MALE, alphas=[0.03]) for values in (ORACLE, 7 * ORACLE))
    pd.testing.assert_frame_equal(one, other)
