"""The winner as a model for `mlflow models serve`: it takes an image file and returns the enlarged image as a PNG file.

MLflow copies this file into the model, together with `sr_core` ("models from code"). It must not import `study`.
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
        """Returns the enlarged images as PNG files in the column `picture`, one image per row.

        Args:
            model_input: the column `picture` holds whole image files.
            params: `self_ensemble` averages over flips and turns.
        Raises:
            MlflowException: a file is not a usable image.
        """
        self_ensemble = bool((params or {}).get("self_ensemble", False))
        enlarged = model_input[["picture"]].copy()
        enlarged["picture"] = [self._enlarge(content, self_ensemble) for content in model_input["picture"]]
        return enlarged

    def _enlarge(self, content: bytes, self_ensemble: bool) -> bytes:
        from sr_core.errors import ImageError
        from sr_core.model.enlarge import enlarge_file

        with TemporaryDirectory(prefix="upscale-") as folder:
            lr = Path(folder, "picture")
            sr = Path(folder, "enlarged.png")
            lr.write_bytes(content)
            try:
                enlarge_file(self._network, lr, sr, self_ensemble=self_ensemble)
            except ImageError as exc:  # any other exception would reach the client as a traceback
                message = str(exc).replace(str(lr), "picture")
                raise MlflowException(message, error_code="INVALID_PARAMETER_VALUE") from exc
            return sr.read_bytes()


set_model(Upscaler())
