"""Making the models known to transformers as soon as both packages are imported, in whichever order."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

PIPELINES = "transformers.pipelines"


def register_with_pipelines() -> None:
    """Let `transformers.pipeline` know our models, configurations, processors and task.

    What registers them is the import of `hf_relearn.models`, which takes seconds, since torch and transformers come
    with it. So it happens at once only where the pipelines of transformers are there already; otherwise right after
    somebody imports those, and never for who only uses the method.
    """
    if PIPELINES in sys.modules:
        import_module("hf_relearn.models")
    elif not any(isinstance(finder, _AfterPipelines) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterPipelines())


class _AfterPipelines(MetaPathFinder):
    """Finds one module, as the other finders would, and imports our models once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            import_module("hf_relearn.models")

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]  # of this one module's loader
        return spec
