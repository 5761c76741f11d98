"""Reads data sets: layouts on disk, images, masks, the data check, splits and augmentation."""
