"""Where images come from: products, STAC items and folders of dated rasters."""
