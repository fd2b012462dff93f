"""`hf-relearn export`, `demo` and `space`: a saved model for others, as ONNX, on a page, or as a Space."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_relearn.cli.shared import Cpu, ModelName, Revision, check_model, epilog, load_model, print_json, quiet

EXPORT_EPILOG = epilog(
    "hf-relearn export my-model",
    "hf-relearn export me/my-model --format onnx --output exported/my-model.onnx --json",
)
DEMO_EPILOG = epilog(
    "hf-relearn demo my-model",
    "hf-relearn demo my-model --dataset_name clips.csv --split train",
    "hf-relearn demo me/my-model --port 8080 --no_browser",
)
SPACE_EPILOG = epilog(
    "hf-relearn space me/my-model --name me/my-demo",
    "hf-relearn space my-model --folder my-demo",
    "hf-relearn space my-model --name my-demo --private --package hf_relearn[demo]==0.1.0",
)


def export(
    context: typer.Context,
    model: ModelName,
    revision: Revision = "main",
    cpu: Cpu = False,
    format: Annotated[Literal["onnx"], typer.Option("--format", help="Format.")] = "onnx",
    output: Annotated[
        str | None,
        typer.Option(
            "--output", metavar="PATH", help="A file ending in .onnx, or a folder; unset, the model's name, here."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: file.")] = False,
) -> None:
    """Export a model to ONNX.

    Writes one file, whose inputs are those that the model's processor makes. It is written only if ONNX Runtime gives
    the model's logits on another batch, to 1e-4; otherwise the modality that cannot be exported is named. The size of
    the batch and the lengths of texts, waveforms and sequences of features are free. Needs the extra 'onnx'
    (pip install 'hf_relearn[onnx]').
    """
    with quiet(context):
        from hf_relearn.hub.onnx_export import export_onnx

        loaded, processor = load_model(model, revision)
        file = export_onnx(loaded.float(), output or f"{Path(model).resolve().name}.onnx", processor)
    if as_json:
        print_json({"file": str(file)})
    else:
        print(f"The model is in {file}")


def demo(
    context: typer.Context,
    model: ModelName,
    revision: Revision = "main",
    cpu: Cpu = False,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", help="Port; unset, the first that is free from 7860 on.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no_browser", help="Do not open a browser.")] = False,
    dataset_name: Annotated[
        str | None,
        typer.Option("--dataset_name", metavar="NAME", help="Data set with examples for the page, one of each class."),
    ] = None,
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Its split.")] = "validation",
) -> None:
    """Try a model on a page in the browser.

    The page has an input for each modality, the model's scores, and the contribution of each modality. It is served
    until Ctrl+C, and only to this machine unless --host says otherwise: whoever reaches it can use the model. Needs
    the extra 'demo' (pip install 'hf_relearn[demo]').
    """
    if find_spec("gradio") is None:
        raise ImportError("the page needs gradio: pip install 'hf_relearn[demo]'")
    with quiet(context):
        check_model(model, revision)
        from hf_relearn.demo.serving import serve

        serve(
            model,
            revision=revision,
            host=host,
            port=port,
            open_browser=not no_browser,
            device=-1 if cpu else None,
            dataset_name=dataset_name,
            split=split,
        )


def space(
    context: typer.Context,
    model: ModelName,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Space to push to (user/space, or a name of your own)."),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="FOLDER", help="Folder to write; unset, the model's name and '-space'."),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="Title of the Space; unset, the model's name.")
    ] = None,
    package: Annotated[
        str | None,
        typer.Option(
            "--package", metavar="TEXT", help="Requirement that pip installs there; unset, this version of hf_relearn."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new Space private.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: folder, files, space (or null).")
    ] = False,
) -> None:
    """Make a Space of a model's page, and push it.

    Writes the folder of a Space that serves the page of 'hf-relearn demo', and pushes it with --name. A model on the
    Hub is loaded from there by the Space; one in a local folder goes into the Space with its files. A push that fails
    leaves the folder, exits with 1 and shows the command that pushes it later.
    """
    if find_spec("gradio") is None:
        raise ImportError("a Space is made for the Gradio that is installed: pip install 'hf_relearn[demo]'")
    if model.startswith((".", "/", "~")) and not Path(model).is_dir():
        raise FileNotFoundError(f"{model}: no such folder")
    target = Path(folder or f"{Path(model).resolve().name}-space")
    with quiet(context):
        from hf_relearn.demo.space import PACKAGE, write_space
        from hf_relearn.hub.upload import PushError, push_folder

        if Path(model).is_dir():
            check_model(model, "main")
        files = write_space(model, target, title=title, package=package or PACKAGE)
        address = None
        if name:
            try:
                commit = push_folder(
                    target, name, private=private or None, commit_message="Page of a model", repo_type="space"
                )
            except PushError as error:
                raise OSError(str(error)) from error
            address = commit.repo_url.url
    if as_json:
        print_json({"folder": str(target), "files": files, "space": address})
    else:
        print(f"The Space is in {target}" + (f", and at {address}" if address else ""))
