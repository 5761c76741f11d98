"""A model over whole images: passes, tiles, metrics, folders, export."""
