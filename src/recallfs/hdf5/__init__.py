"""Reading HDF5 files: types, elements, chunks and the filters that they went through."""
