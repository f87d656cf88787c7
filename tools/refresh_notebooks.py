"""Run lessons from a fresh kernel and store their outputs, byte for byte the same each time.

    python tools/refresh_notebooks.py [notebooks/01_pool_a_4x4_map.ipynb ...]

Without arguments every lesson is refreshed. What a run leaves behind by chance (times,
widget ids, folders in tracebacks, the Python version) is taken out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

LESSONS = Path(__file__).parent.parent / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a lesson in its own folder and return it with the new, normalised outputs."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    normalise(notebook)
    return notebook


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Take out of a notebook what differs from run to run or names a folder."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "name": "python"},
    }
    for cell in notebook.cells:
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            cell.outputs = [output for output in cell.outputs if not is_passing(output)]
        for output in [*cell.get("outputs", [])]:
            # without a kernel behind it a widget shows an error; the picture in front of it stays
            if output.get("data", {}).pop(WIDGET_VIEW, None) and not output.data:
                cell.outputs.remove(output)
            # a page without a lab's widget shows the PNG beside it, or the HTML of a question
            data = output.get("data", {})
            if "image/png" in data and "gap-still" in data.get("text/html", ""):
                del data["text/html"]
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
        if "reveal" in cell.metadata.get("tags", []):
            fold_output(cell)


def fold_output(cell: nbformat.NotebookNode) -> None:
    """Keep the stored output out of view until the cell is run, or the line in its place clicked.

    JupyterLab writes both fields, so a file that is opened and saved stays the same. The line in
    place of a folded output is the first line of it, so a line that gives nothing away goes first.
    """
    cell.metadata.collapsed = True
    cell.metadata.jupyter = {**cell.metadata.get("jupyter", {}), "outputs_hidden": True}
    if cell.outputs and not cell.outputs[0].get("metadata", {}).get("cover"):
        words = {"text/plain": "What comes out when you run it:"}
        cover = nbformat.v4.new_output("display_data", words, metadata={"cover": True})
        cell.outputs.insert(0, cover)


def is_passing(output: nbformat.NotebookNode) -> bool:
    """Whether it is a warning about this machine, or a progress bar, stored at 0 %."""
    is_bar = set(output.get("data", {})) == {WIDGET_VIEW, "text/plain"}
    return output.get("name") == "stderr" or (output.output_type == "display_data" and is_bar)


def main() -> None:
    """Refresh the lessons named on the command line, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(LESSONS.glob("*.ipynb")):
        notebook = execute(path.resolve())
        nbformat.write(notebook, path)
        print(f"refreshed {path.name}")


if __name__ == "__main__":
    main()
