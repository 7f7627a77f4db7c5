"""The winner as MLflow serves it: an image file in, the enlarged image as a PNG file out.

This file is copied into the model, with `sr_core` beside it (MLflow's "models from code"); it must not import `study`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class Upscaler(PythonModel):  # type: ignore[misc]  # MLflow is not typed
    """Enlarges image files as `python -m sr_core.upscale` does, pixel for pixel."""

    def load_context(self, context: PythonModelContext) -> None:
        import torch

        from sr_core.model.weights import load_model

        network = load_model(Path(context.artifacts["network"]) / "weights.safetensors", None)
        self._network = network.to("cuda:0" if torch.cuda.is_available() else "cpu")

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row an image: `image` holds a whole file. Raises MlflowException that says what is wrong with one."""
        self_ensemble = bool((params or {}).get("self_ensemble", False))
        enlarged = model_input[["picture"]].copy()
        enlarged["picture"] = [self._enlarge(content, self_ensemble) for content in model_input["picture"]]
        return enlarged

    def _enlarge(self, content: bytes, self_ensemble: bool) -> bytes:
        from sr_core.errors import ImageError
        from sr_core.model.enlarge import enlarge_file

        with TemporaryDirectory(prefix="upscale-") as folder:
            given, made = Path(folder, "picture"), Path(folder, "enlarged.png")
            given.write_bytes(content)
            try:
                enlarge_file(self._network, given, made, self_ensemble=self_ensemble)
            except ImageError as exc:  # anything else would reach the client as a traceback
                message = str(exc).replace(str(given), "picture")
                raise MlflowException(message, error_code="INVALID_PARAMETER_VALUE") from exc
            return made.read_bytes()


set_model(Upscaler())
