"""What is stored of a lesson that has run."""

from copy import deepcopy

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from refresh_notebooks import WIDGET_VIEW, normalise

VIEW = {WIDGET_VIEW: {"model_id": "1", "version_major": 2}}


def test_the_picture_of_a_lab_is_stored_and_what_needs_a_kernel_is_not():
    still = {"text/plain": "PoolLab(4x4)", "image/png": "abc"}
    twice = still | {"text/html": '<div class="gap-still"><img></div>'}
    asked = {"text/plain": "Predict. ?", "text/html": '<div class="gap-still">?</div>'}
    bar = new_output("display_data", {"text/plain": "0%|   |", **VIEW})
    warning = new_output("stream", name="stderr", text="no GPU")
    notebook = new_notebook(
        cells=[
            new_markdown_cell("A lab:"),
            new_code_cell(
                outputs=[new_output("display_data", data) for data in (twice, VIEW, VIEW)]
            ),
            new_code_cell(outputs=[new_output("display_data", data) for data in (asked, VIEW)]),
            new_code_cell(outputs=[new_output("execute_result", {"text/plain": "A()", **VIEW})]),
            new_code_cell(
                outputs=[warning, bar, new_output("stream", text="1.5 s")],
                metadata={"tags": ["nbval-ignore-output"]},
            ),
            new_code_cell(
                outputs=[new_output("error", ename="E", evalue="no", traceback=["/home/me"])]
            ),
        ],
        metadata={"widgets": {}},
    )
    normalise(notebook)
    lab, question, other_widget, training, error = [cell.outputs for cell in notebook.cells[1:]]
    assert [output.data for output in lab] == [still]
    assert [output.data for output in question] == [asked]
    assert [output.data for output in other_widget] == [{"text/plain": "A()"}]
    assert [output.text for output in training] == ["1.5 s"]
    assert error[0].traceback == ["E: no"]
    once = deepcopy(notebook)
    normalise(notebook)
    assert notebook == once


def test_what_answers_a_question_is_stored_folded():
    said = new_output("stream", text="4")
    plain, reveal = (new_code_cell("2 + 2", outputs=[said]) for _ in range(2))
    reveal.metadata.tags = ["reveal"]
    notebook = new_notebook(cells=[plain, reveal])
    normalise(notebook)
    assert (plain.metadata, plain.outputs) == ({}, [said])
    # both fields, as JupyterLab writes them
    folded = {"tags": ["reveal"], "collapsed": True, "jupyter": {"outputs_hidden": True}}
    assert reveal.metadata == folded
    cover, shown = reveal.outputs  # of the first JupyterLab shows the first line
    assert cover.data == {"text/plain": "What comes out when you run it:"}
    assert shown == said
    once = deepcopy(notebook)
    normalise(notebook)
    assert notebook == once


def test_what_is_folded_may_be_an_error_or_nothing_that_is_stored():
    bar = new_output("display_data", {"text/plain": "0%|   |", **VIEW})
    error = new_output("error", ename="E", evalue="no", traceback=["E: no"])
    cells = [new_code_cell(outputs=outputs) for outputs in ([error], [bar], [])]
    for cell in cells:
        cell.metadata.tags = ["reveal", "nbval-ignore-output"]
    normalise(new_notebook(cells=cells))
    assert cells[0].outputs[1:] == [error]
    assert [cell.outputs for cell in cells[1:]] == [[], []]
