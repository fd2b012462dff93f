"""A run's report, made anew from what the run left in its folder."""

from pathlib import Path

from hf_relearn.report.run_report import write_report
from hf_relearn.training.run_folder import read_run_folder, require_run


def rebuild_report(folder: str | Path, *, title: str | None = None) -> Path:
    """Write `report.md` and its figures from a run's output directory. Figures of features that are there stay.

    Args:
        folder: the output directory.
        title: heading; None takes that of the earlier report, or the folder's name.

    Returns:
        Path of `report.md`.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: for a file of it that is not what its name says; the message names it.
    """
    folder = Path(folder)
    run = read_run_folder(folder)
    require_run(folder, run)
    return write_report(
        folder,
        title=title or run.report.get("title") or folder.resolve().name,
        records=run.records,
        log_history=run.log_history,
        results=run.results,
        settings=run.report.get("settings", {}),
        notes=run.report.get("notes", ()),
        versions=run.report.get("versions"),
        keep_feature_figures=True,
    )
