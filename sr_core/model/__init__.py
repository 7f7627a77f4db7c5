"""The networks A2N and A2N-M, their weight files, and the super-resolution of images."""
