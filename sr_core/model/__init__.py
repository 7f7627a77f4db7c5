"""A2N and A2N-M: the network, its weights in and out, and super-resolving one image with it."""
