"""A folder of small recipes with their files, in place of the shipped ones."""

import hashlib
import json

import pytest

from matfm.tasks.recipes import recipe as recipes

TABLES = {
    "oqmd_like": "formula,gap\nFe2O3,0.5\nNaCl,5\nGaN,1.7\nMgO,4.5\nFe0.5O0.5,0\n",
    "mp_like": "formula,gap\nFe4O6,0.6\nZnO,0.7\nGa1N1,1.8\nTe,\n",
    "bench": "formula,gap\nNaCl,5.1\nZnO,0.8\nAlN,4\nFeO,0\nCu,0\nMgO2,1\n",
    "twice": "formula,gap\nFe2O3,3\nFe4O6,1\nFe6O9,\nGaN,\n",
    "imagined": "formula,gap\nNaCl,5\nNaCl3,1\nFeCr,0\n",
    "flat": "s,part\nCCO,train\nc1ccccc1O,train\nCC(=O)O,test\nCCN,train\nOCCO,train\n",
    "potency": "s,y,part\nOCC,-3,train\nOC(=O)C,-2,test\nC(N)C,-1,test\nC1=CC=CC=C1O,0,train\nCl/C=C/Cl,1,train\n",
}


def recipe_text(name, kind, tables, rows, more="", file=None):
    file = file or f"{name}.csv"
    digest = hashlib.sha256(TABLES[name].encode()).hexdigest()
    return (
        f'name = "{name}"\ntitle = "{name}"\nversion = "1"\nkind = "{kind}"\nrows = {rows}\nlicense = "MIT"\n'
        f'citation = ["Nobody (2026)"]\n{more}\n[source]\nkind = "file"\nfile = "{file}"\nsha256 = "{digest}"\n{tables}'
    )


def composition(name, rows, origin, more=""):
    tables = (
        f'[[tables]]\nmembers = {{ all = "{name}.csv" }}\ninput = "formula"\n'
        'columns = [{ from = "gap", name = "gap", property = "band_gap", unit = "eV" }]\n'
    )
    return recipe_text(name, "composition", tables + more, rows, f'origin = "{origin}"')


def merge_text(name, kind, rows, body):
    said = {"name": name, "title": name, "version": "1", "kind": kind, "license": "MIT"}
    head = "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())
    return f'{head}rows = {rows}\ncitation = ["Nobody (2026)"]\n[merge]\n{body}'


@pytest.fixture
def small_recipes(tmp_path, monkeypatch):
    """Recipes `oqmd_like`, `mp_like`, `bench` (folds), `flat` (canonical SMILES), `potency`, and two merges."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, text in TABLES.items():
        (folder / f"{name}.csv").write_text(text)
    molecules = '[[tables]]\nmembers = {{ all = "{0}.csv" }}\ninput = "s"\nsplit = "split"\nsplit_from = "part"\n'
    potency = 'columns = [{ from = "y", name = "pki", property = "pki", unit = "-log10(M)", offset = 9.0 }]\n'
    folds = f'[folds]\ncount = 3\nseed = 7\nsha256 = "{FOLDS}"\n'
    written = {
        "oqmd_like": composition("oqmd_like", 5, "oqmd"),
        "mp_like": composition("mp_like", 4, "mp"),
        "bench": composition("bench", 6, "mp", folds),
        "twice": composition("twice", 4, "oqmd"),
        "imagined": composition("imagined", 3, "nobody"),
        "flat": recipe_text("flat", "smiles", molecules.format("flat"), 5, 'inputs = "canonical"'),
        "potency": recipe_text("potency", "smiles", molecules.format("potency") + potency, 5, 'origin = "chembl"'),
        "all_formulas": merge_text(
            "all_formulas", "composition", 11,
            'parts = [{ recipe = "oqmd_like", labels = ["gap"] }, { recipe = "mp_*" }, { recipe = "bench" }]\n',
        ),
        "all_molecules": merge_text(
            "all_molecules", "smiles", 4,
            'parts = [{ recipe = "flat", split = ["train"] }, { recipe = "potency", split = ["train"] }]\n'
            'without = [{ recipe = "potency", split = ["test"] }]\n',
        ),
    }  # fmt: skip
    for name, text in written.items():
        (folder / f"{name}.toml").write_text(text)
    monkeypatch.setattr(recipes, "recipe_folder", lambda: folder)
    monkeypatch.chdir(folder)
    return folder


def _folds():
    import numpy as np
    from sklearn.model_selection import KFold

    fold_of_row = np.zeros(6, np.uint8)
    for number, (_, test) in enumerate(KFold(3, shuffle=True, random_state=7).split(np.zeros(6))):
        fold_of_row[test] = number
    return hashlib.sha256(fold_of_row.tobytes()).hexdigest()


FOLDS = _folds()
