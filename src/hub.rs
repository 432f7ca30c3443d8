//! The model host: revision, file list, sizes, digests, download.
