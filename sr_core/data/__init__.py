"""From picture files to training patches: file → pixels → LR/HR store → patch batches."""
