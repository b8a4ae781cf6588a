"""Road-scene semantic segmentation: a small module shared by the notebooks and the pipeline."""
