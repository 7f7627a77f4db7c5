"""One image: bytes, pixels and the kernels that make LR images."""
