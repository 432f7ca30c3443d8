//! The public, read-only score API and page.
