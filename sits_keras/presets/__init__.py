"""Pretrained models: folders, downloads, loading and cards."""
