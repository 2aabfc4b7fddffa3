"""What the judges of this folder share."""
