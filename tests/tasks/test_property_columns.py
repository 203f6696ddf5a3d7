"""Units and bounds of a target column reach the head, the summary, the card and the plot."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matfm.tasks import finetune, labelled_rows, plots, pretrain
from matfm.tasks.cards import write_finetuning_card
from matfm.tasks.tables import column_property, read_table


@pytest.fixture
def table(tmp_path):
    """Stability in meV/atom, a modulus on the log scale, and a column whose property is named apart."""
    columns = {
        "e_hull": ({"unit": "meV/atom"}, 1.0),
        "K_VRH": ({"unit": "log10(GPa)"}, -1.0),
        "target": ({"unit": "eV", "property": "band_gap"}, 2.0),
        "n_optical": ({"property": "refractive_index"}, 1.5),
    }
    formulas = [f"Fe{amount}O" for amount in range(1, 41)]
    arrays = [pa.array(formulas), *(pa.array([value] * 40) for _, value in columns.values())]
    fields = [
        pa.field("formula", pa.string()),
        *(pa.field(n, pa.float64(), metadata=m) for n, (m, _) in columns.items()),
    ]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(arrays, pa.schema(fields)), path)
    return str(path), tuple(columns)


def test_a_column_keeps_its_name_and_gets_unit_and_bounds(table):
    path, names = table
    known = [column_property(path, name) for name in names]
    assert [p.name for p in known] == list(names)
    assert [p.unit for p in known] == ["meV/atom", "log10(GPa)", "eV", ""]
    assert [p.limits[0] for p in known] == [0, -math.inf, 0, 1]


def test_a_table_without_units_is_read_by_the_column_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,band_gap_ev,loudness\nFe,1,2\n")
    assert column_property(str(path), "band_gap_ev").unit == "eV"
    assert column_property(str(path), "loudness").limits == (-math.inf, math.inf)


def test_the_pretraining_head_has_the_bounds_of_the_columns_unit(table, tmp_path):
    path, names = table
    config = pretrain.PretrainConfig(
        pretrain.CorpusConfig(table=path, targets=names, held_out=0.2), model=pretrain.ModelConfig(size="tiny")
    )
    corpus = pretrain.load_corpus(config, tmp_path)
    model = pretrain.new_model(config, corpus, pretrain.new_vocabulary(config))
    assert model.config.property_units == ["meV/atom", "log10(GPa)", "eV", ""]
    assert model.property_head.lower.tolist() == [0, -math.inf, 0, 1]


def test_finetuning_takes_the_same(table):
    path, names = table
    config = finetune.FinetuneConfig(path, "formula", names)
    assert labelled_rows.load_rows(config, read_table(path)).targets.properties == tuple(
        column_property(path, name) for name in names
    )


def test_the_card_gives_units_only_to_scores_that_have_them(table, tmp_path):
    path, _ = table
    summary = {
        "trainable_share": 1.0, "rows_in": 1, "rows_used": 1, "rows_rejected": 0, "rows": {"test": 1}, "seconds": 1.0, "leakage": {},
        "units": {"e_hull": "meV/atom"}, "metrics": {"test": {"e_hull": {"n": 1, "mae": 2.0, "rmse": 3.0, "r2": 0.5}}},
    }  # fmt: skip
    write_finetuning_card(tmp_path, finetune.FinetuneConfig(path, "formula", ("e_hull",)), summary)
    lines = (tmp_path / "card.md").read_text("utf-8").splitlines()
    assert "| test | e_hull mae | 2.0000 | meV/atom |" in lines
    assert "| test | e_hull r2 | 0.5000 |  |" in lines


def test_the_parity_plot_is_labelled_with_the_unit(table, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    known = column_property(table[0], "e_hull")
    values = pa.array([1.0, 2.0]).to_numpy()
    plots.draw_parity(tmp_path, known.name, known.unit, values, values, "t")
    assert drawn[0].axes[0].get_xlabel() == "true e_hull (meV/atom)"
