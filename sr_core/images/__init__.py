"""Single images: their files, their pixels, and the kernels that make LR images."""
