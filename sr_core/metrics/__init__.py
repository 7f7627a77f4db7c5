"""PSNR, SSIM and evaluation protocols: the NumPy reference, and a batched version in torch for validations."""
