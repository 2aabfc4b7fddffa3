"""What all reports share: drawings in one style, and pages in one look."""
