"""From a person's folder to checked images and masks, splits and augmented samples."""
