"""From folders of images to arrays."""
