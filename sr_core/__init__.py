"""Super-resolution: networks, data, metrics and training. It does not use Optuna or MLflow."""

from sr_core.process.former_names import keep

# Experiment files and notebooks of version 0.1 import these names.
keep(
    {
        "sr_core.data": None,
        "sr_core.data.color": "sr_core.images.color",
        "sr_core.data.degrade": "sr_core.images.degrade",
        "sr_core.data.images": "sr_core.images.files",
        "sr_core.data.resize": "sr_core.images.resize",
    }
)
