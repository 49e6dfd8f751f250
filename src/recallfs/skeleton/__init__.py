"""What is kept of a released HDF5 file, and how a recomputed one becomes the original again."""
