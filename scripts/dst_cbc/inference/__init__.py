"""Use of a model on whole images: passes, tiles, metrics, folders of images, export."""
