"""Delete derived NWB/HDF5 files and go on as if they were there."""
__version__ = "0.1.0"
