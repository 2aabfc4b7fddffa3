"""What is asked of images and how it is read: templates, a batch on one shared pass, pairs of images."""
