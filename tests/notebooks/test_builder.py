"""The builder: solutions out, outputs in, the same every time, and nothing that does not belong."""

import json
import os
import re
from pathlib import Path

import pytest

SOURCE = '''\
# %% [markdown]
# # A toy

# %% tags=["setup"]
import numpy as np

# %% tags=["exercise"]
# How many?
# <solution>
secret_sum = 40 + 2
answer = secret_sum
# </solution>
print(answer)

# %% [markdown] tags=["solution"]
# It is the secret sum.

# %% tags=["nbval-ignore-output"] reason="never the same number twice"
np.random.default_rng().random()
'''
CELL = "# %%\n{}\n"


def outputs(*shown: dict) -> dict:
    """A code cell that was run first and showed this."""
    return {"cell_type": "code", "execution_count": 1, "metadata": {}, "source": "", "outputs": list(shown)}


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def notebook(builder, *cells: dict):
    return builder.nbformat.from_dict({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A folder with one short source that shows text, a picture and a widget."""
    (tmp_path / "src").mkdir()
    cells = ["import matplotlib.pyplot as plt\nimport ipywidgets",
             "print('two'); print(1 + 1)", "figure, axis = plt.subplots(figsize=(1, 1))", "ipywidgets.IntSlider(value=3)"]
    (tmp_path / "src/00_toy.py").write_text("\n".join(map(CELL.format, cells)))
    return tmp_path


def test_readers_get_a_stub_for_every_solution(builder):
    student = builder.convert(SOURCE)
    assert "secret" not in json.dumps(student)
    assert [cell.source for cell in student.cells][2] == "# How many?\nanswer = ...\nprint(answer)"
    assert len(student.cells) == 4


def test_authors_keep_the_solutions(builder):
    full = builder.convert(SOURCE, solutions=True)
    assert "secret_sum = 40 + 2" in full.cells[2].source and len(full.cells) == 5


@pytest.mark.parametrize("broken", [
    SOURCE.replace("# </solution>\n", ""), SOURCE.replace("# <solution>\n", ""), SOURCE.replace(' tags=["exercise"]', ""),
    SOURCE.replace("# <solution>\n", "").replace("# </solution>\n", ""),
    SOURCE.replace("# <solution>\n", "answer = ...\n# <solution>\n"),
])
def test_a_solution_whose_marks_do_not_pair_up_is_refused(builder, broken: str):
    with pytest.raises(ValueError, match="How many.*an exercise holds one"):
        builder.convert(broken)


def test_the_same_text_gives_the_same_notebook(builder):
    assert builder.nbformat.writes(builder.convert(SOURCE)) == builder.nbformat.writes(builder.convert(SOURCE))


@pytest.mark.parametrize(("text", "said"), [
    (CELL.format("\n".join(["x = 1"] * 16)), "16 lines, more than 15"),
    ('# %% tags=["nbval-skip"]\n1\n', "escapes the comparison"),
    (CELL.format("# NBVAL_IGNORE_OUTPUT\n1"), "escapes the comparison"),
    ('# %% tags=["nbval-ignore-output"]\n1\n', "without a reason"),
    (CELL.format("1") * 8 + SOURCE.partition("sum.\n\n")[2], "1 of 9 code cells"),
])
def test_what_a_source_may_not_hold(builder, text: str, said: str):
    assert any(said in line for line in builder.source_problems(builder.convert(text)))


def test_one_ignored_cell_in_ten_with_a_reason_is_fine(builder):
    assert builder.source_problems(builder.convert(CELL.format("1") * 9 + SOURCE.partition("sum.\n\n")[2])) == []


@pytest.mark.parametrize(("shown", "said"), [
    (stream("UserWarning: beware"), "a warning"),
    (stream("careful", "stderr"), "stderr"),
    (stream("see /home/ada/faces"), "a machine path"),
    (stream(r"see C:\faces"), "a machine path"),
    (stream("made on 2024-02-29"), "a timestamp"),
    (stream("took 0:01:12"), "a timestamp"),
    ({"output_type": "execute_result", "data": {"text/plain": "<object at 0x7f00aa11bb22>"}, "metadata": {}},
     "an object address"),
    ({"output_type": "execute_result", "data": {"text/plain": "<function shutil.rmtree(path)>"}, "metadata": {}},
     "an object address"),
    ({"output_type": "error", "ename": "KeyError", "evalue": "'p'", "traceback": []}, "KeyError: 'p'"),
])
def test_what_an_output_may_not_hold(builder, shown: dict, said: str):
    [line] = builder.output_problems(notebook(builder, outputs(shown)))
    assert line.startswith("code cell 1 ") and said in line


def test_ordinary_outputs_pass(builder):
    said = stream("ratio 20:80, FD = 0.140 (0.106 to 0.173), seeds 0/1/2, data/faces, https://example.org/work/1, red 0xff")
    assert builder.output_problems(notebook(builder, outputs(said))) == []


def test_a_cell_that_was_not_run_or_run_out_of_order_is_told(builder):
    cells = [outputs(), outputs() | {"execution_count": None}, outputs() | {"execution_count": 7}]
    assert [line[:11] for line in builder.output_problems(notebook(builder, *cells))] == ["code cell 2", "code cell 3"]


def test_differences_see_text_and_sources_but_no_pictures(builder):
    def shown(picture: str, text: str, source: str = "", **metadata) -> object:
        data = {"image/png": picture, "text/plain": text}
        cell = outputs({"output_type": "display_data", "data": data, "metadata": {}})
        return notebook(builder, cell | {"source": source, "metadata": metadata})

    assert builder.differences(shown("aaaa", "1"), shown("bbbb", "1")) == []
    assert builder.differences(shown("aaaa", "1"), shown("aaaa", "2")) == ["cell 0 gives another output"]
    assert builder.differences(shown("aaaa", "1"), shown("aaaa", "2"), outputs=False) == []
    assert builder.differences(shown("aaaa", "1"), shown("aaaa", "1", "x")) == ["cell 0 differs from its source"]
    ignored = {"tags": ["nbval-ignore-output"]}
    assert builder.differences(shown("aaaa", "1", **ignored), shown("aaaa", "2", **ignored)) == []


def test_building_twice_gives_the_same_and_check_tells_what_changed(builder, course: Path, capsys):
    arguments = ["--folder", str(course)]
    assert builder.main([*arguments, "--check"]) == 1  # it was never built
    assert not (course / "00_toy.ipynb").exists()
    assert builder.main(arguments) == 0
    content = (course / "00_toy.ipynb").read_text()
    built = json.loads(content)
    assert [cell["execution_count"] for cell in built["cells"]] == [1, 2, 3, 4]
    assert built["cells"][1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["two\n", "2\n"]}]
    assert {"image/png", "text/plain"} == built["cells"][2]["outputs"][0]["data"].keys()
    view = built["cells"][3]["outputs"][0]["data"]["application/vnd.jupyter.widget-view+json"]
    assert re.fullmatch("0{30}\\d\\d", view["model_id"]) and view["model_id"] in json.dumps(built["metadata"]["widgets"])
    assert not re.search(r'"(execution|version)": ?[{"]', content)
    assert builder.main(arguments) == 0 and (course / "00_toy.ipynb").read_text() == content
    (course / "00_toy.ipynb").write_text(content.replace('"2\\n"', '"3\\n"'))
    capsys.readouterr()
    assert builder.main([*arguments, "--check"]) == 1
    assert "00_toy: cell 1 gives another output" in capsys.readouterr().out


def test_kernels_run_as_those_of_the_tests_do(builder):
    assert {name: os.environ.get(name) for name in builder.KERNEL_ENVIRONMENT} == builder.KERNEL_ENVIRONMENT


def test_a_notebook_that_fails_is_not_written(builder, course: Path, capsys):
    (course / "src/00_toy.py").write_text(CELL.format("1 / 0"))
    assert builder.main(["--folder", str(course)]) == 1
    assert "00_toy: ZeroDivisionError: division by zero" in capsys.readouterr().out
    assert not (course / "00_toy.ipynb").exists()


def test_ignored_cells_are_listed_with_their_reason(builder, course: Path):
    (course / "src/00_toy.py").write_text(SOURCE)
    assert "| 00_toy | 3 | never the same number twice |" in builder.ignored_list(course)
